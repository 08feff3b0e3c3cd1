"""What the models refuse, before it turns into a message about matrix sizes from somewhere inside."""

from collections.abc import Sequence

from torch import Tensor

from lediflow.nn.checks import check_labels

LATENT_KEY, CLASSES_KEY = "model.velocity.latent_shape", "model.velocity.num_classes"


def written(shape: Sequence[int]) -> str:
    """4x8x8."""
    return "x".join(map(str, shape))


def check_latent(z: Tensor | None, latent_shape: Sequence[int], batch: int) -> None:
    """Refuse a latent of another shape than (batch, channels, height, width), or one too many or too few."""
    if z is None and latent_shape:
        raise ValueError(
            f"z: none given, but this flow model listens to a latent of {written(latent_shape)} ({LATENT_KEY}); give "
            f"the latent of each image"
        )
    if z is not None and not latent_shape:
        raise ValueError(
            "z: given, but this flow model has no latent (the flow-matching baseline); leave z out, or build it "
            f"with {LATENT_KEY}"
        )
    if z is not None and tuple(z.shape[1:]) != tuple(latent_shape):
        raise ValueError(
            f"z: a latent of {written(z.shape[1:])} per image, but this flow model was built for "
            f"{written(latent_shape)} ({LATENT_KEY}); use the auxiliary model it was trained with"
        )
    if z is not None and len(z) != batch:
        raise ValueError(
            f"z: {len(z)} latents of {written(latent_shape)} ({LATENT_KEY}) for {batch} images; give one for each image"
        )


def check_classes(labels: Tensor | None, num_classes: int, batch: int) -> None:
    """Refuse labels of a model without classes, and classes that there are not."""
    if labels is None:
        return
    if not num_classes:
        raise ValueError(
            "labels: given, but this flow model was built without classes; leave them out, or set "
            f"{CLASSES_KEY}"
        )
    known = f"the classes 0 to {num_classes - 1} ({CLASSES_KEY}={num_classes}) and {num_classes} for no class"
    check_labels(labels, num_classes + 1, batch, known)
