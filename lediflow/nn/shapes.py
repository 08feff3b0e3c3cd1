"""Shapes of the tensors that the building blocks exchange, and checks of a network's inputs.

The checks raise ValueErrors that name the input instead of a matrix size. Shapes and dtypes are always checked. Values
are checked only where that needs no device synchronisation: labels on a CPU, outside of a compiled graph. On a GPU,
torch itself fails for a label out of range.

Layers rearrange by methods of tensors, not by einops: torch.compile traces the parser of its patterns, which was most
of the time of a start with a filled cache.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Image = Float[Tensor, "batch channels height width"]
Tokens = Float[Tensor, "batch height width channels"]
Heads = Float[Tensor, "batch height width heads head_dim"]
Condition = Float[Tensor, "batch condition_width"]
SampleKeys = Int64[Tensor, " batch"]  # seeds of the dropout masks, see lediflow.nn.dropout


def tokens_of(x: Image) -> Tokens:
    """The pixels of an image, or of a latent, as tokens."""
    return x.permute(0, 2, 3, 1)


def image_of(x: Tokens) -> Image:
    """The inverse of `tokens_of`."""
    return x.permute(0, 3, 1, 2)


def time_per_sample(
    t: Float[Tensor, ""] | Float[Tensor, " batch"] | float, x: Float[Tensor, " batch *dims"], name: str = "t"
) -> Float[Tensor, " batch"]:
    """Times of shape (batch,), from a number, a scalar tensor or one time per sample; `name` is for the error."""
    times = torch.as_tensor(t, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if times.ndim > 1 or (times.ndim == 1 and len(times) != len(x)):
        raise ValueError(
            f"{name} of shape {tuple(times.shape)} for a batch of {len(x)}; give one time for all, or one for each"
        )
    return times.expand(len(x))


def check_labels(labels: Tensor, rows: int, batch: int, known: str) -> None:
    """ValueError unless there is one valid class number per image; `known` names the valid ones in the message."""
    if labels.ndim != 1 or len(labels) != batch or labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"labels: {labels.dtype} of shape {tuple(labels.shape)} for a batch of {batch}; give one class number for "
            f"each image, int64 of shape ({batch},)"
        )
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    unknown = labels[(labels < 0) | (labels >= rows)]
    if len(unknown):
        raise ValueError(f"labels: {unknown.unique().tolist()}, but there are {known}")


def check_vector(name: str, value: Tensor, batch: int, entries: int) -> None:
    """ValueError unless `value` has shape (batch, entries)."""
    if value.ndim != 2 or value.shape[0] != batch or value.shape[1] != entries:
        raise ValueError(
            f"{name}: shape {tuple(value.shape)} for a batch of {batch}; this model takes {entries} numbers for each "
            f"image, shape ({batch}, {entries})"
        )
