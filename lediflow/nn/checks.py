"""What an hourglass refuses of its inputs, before it turns into a message about sizes from somewhere inside.

Shapes and dtypes are looked at, values only where that makes no device wait: labels on a CPU, outside of a compiled
graph. On a GPU torch itself stops at a label that has no row.
"""

import torch
from torch import Tensor


def check_labels(labels: Tensor, rows: int, batch: int, known: str) -> None:
    """Refuse labels that are not one row number for each image; `known` says which rows there are."""
    if labels.ndim != 1 or len(labels) != batch or labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"labels: {labels.dtype} of shape {tuple(labels.shape)} for a batch of {batch}; give one class number for "
            f"each image, int64 of shape ({batch},)"
        )
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    strangers = labels[(labels < 0) | (labels >= rows)]
    if len(strangers):
        raise ValueError(f"labels: {strangers.unique().tolist()}, but there are {known}")


def check_vector(name: str, value: Tensor, batch: int, entries: int) -> None:
    """Refuse an input that is not so many numbers for each image."""
    if value.ndim != 2 or value.shape[0] != batch or value.shape[1] != entries:
        raise ValueError(
            f"{name}: shape {tuple(value.shape)} for a batch of {batch}; this model takes {entries} numbers for each "
            f"image, shape ({batch}, {entries})"
        )
