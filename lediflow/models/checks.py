"""Checks of the models' inputs, so that errors name the input and the option instead of matrix sizes."""

from collections.abc import Sequence

from torch import Tensor

from lediflow.nn.shapes import check_labels

LATENT_KEY, CLASSES_KEY = "model.velocity.latent_shape", "model.velocity.num_classes"


def shape_text(shape: Sequence[int]) -> str:
    """A shape for a message, e.g. 4x4x4."""
    """4x8x8."""
    return "x".join(map(str, shape))


def check_latent(z: Tensor | None, latent_shape: Sequence[int], batch: int) -> None:
    """ValueError for a latent of a wrong shape or number, and for one that is missing or unexpected."""
    if z is None and latent_shape:
        raise ValueError(
            f"z: none given, but this flow model is conditioned on a latent of {shape_text(latent_shape)} "
            f"({LATENT_KEY}); give the latent of each image"
        )
    if z is not None and not latent_shape:
        raise ValueError(
            "z: given, but this flow model has no latent (the flow-matching baseline); leave z out, or build it "
            f"with {LATENT_KEY}"
        )
    if z is not None and tuple(z.shape[1:]) != tuple(latent_shape):
        raise ValueError(
            f"z: a latent of {shape_text(z.shape[1:])} per image, but this flow model was built for "
            f"{shape_text(latent_shape)} ({LATENT_KEY}); use the auxiliary model it was trained with"
        )
    if z is not None and len(z) != batch:
        raise ValueError(
            f"z: {len(z)} latents of {shape_text(latent_shape)} ({LATENT_KEY}) for {batch} images; give one per image"
        )


def check_classes(labels: Tensor | None, num_classes: int, batch: int) -> None:
    """ValueError for labels of a model without classes, and for unknown classes."""
    if labels is None:
        return
    if not num_classes:
        raise ValueError(
            "labels: given, but this flow model was built without classes; leave them out, or set "
            f"{CLASSES_KEY}"
        )
    known = f"the classes 0 to {num_classes - 1} ({CLASSES_KEY}={num_classes}) and {num_classes} for no class"
    check_labels(labels, num_classes + 1, batch, known)
