"""What the models refuse, before it turns into a message about matrix sizes from somewhere inside.

Shapes and settings are looked at, values only where that makes no device wait: labels on a CPU, outside of a
compiled graph. On a GPU torch itself stops at a label that has no row.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def written(shape: Sequence[int]) -> str:
    """4x8x8."""
    return "x".join(map(str, shape))


def check_latent(z: Tensor | None, latent_shape: Sequence[int]) -> None:
    """Refuse a latent of another shape than (channels, height, width), or one too many or too few."""
    if z is None and latent_shape:
        raise ValueError(
            f"z: none given, but this flow model listens to a latent of {written(latent_shape)}; give the "
            f"latent of each image"
        )
    if z is not None and not latent_shape:
        raise ValueError(
            "z: given, but this flow model has no latent (the flow-matching baseline); leave z out, or build it "
            "with latent_shape"
        )
    if z is not None and tuple(z.shape[1:]) != tuple(latent_shape):
        raise ValueError(
            f"z: a latent of {written(z.shape[1:])} per image, but this flow model was built for "
            f"{written(latent_shape)} (latent_shape); use the auxiliary model it was trained with"
        )


def check_labels(labels: Int[Tensor, " batch"] | None, num_classes: int) -> None:
    """Refuse labels of a model without classes, and classes that there are not."""
    if labels is None:
        return
    if not num_classes:
        raise ValueError(
            "labels: given, but this flow model was built without classes; leave them out, or set "
            "model.velocity.num_classes"
        )
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    strangers = labels[(labels < 0) | (labels > num_classes)]
    if len(strangers):
        raise ValueError(
            f"labels: {strangers.unique().tolist()}, but there are the classes 0 to {num_classes - 1} "
            f"(model.velocity.num_classes={num_classes}) and {num_classes} for no class"
        )
