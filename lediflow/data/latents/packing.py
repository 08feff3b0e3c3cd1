"""Latents as they are stored; `ShardReader.as_signals` is the way back.

One `.npy` per sample: the mean's channels, then the log-variance's for a stochastic codec; where the mirrored
image was encoded too, a first axis [as it is, mirrored].
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped

from lediflow.codecs import Latents, signal_to_bytes
from lediflow.errors import UserError

DTYPES = ("float16", "float32")  # what latents of an autoencoder may be stored as

Stored = Shaped[np.ndarray, "batch channels height width"]


def packed(latents: Latents, stored_dtype: str) -> Stored:
    """A batch of latents in one array."""
    if stored_dtype == "uint8":
        return signal_to_bytes(latents.mean).numpy()
    halves = [half for half in latents if half is not None]
    return torch.cat(halves, dim=1).to(getattr(torch, stored_dtype)).numpy()


def check_range(latents: Latents, stored_dtype: str, keys: Sequence[str]) -> None:
    """Refuse what is not finite, or would not be once stored."""
    halves = [half.flatten(1) for half in latents if half is not None]
    largest = torch.cat(halves, dim=1).abs().amax(1)
    for key, value in zip(keys, largest.tolist(), strict=True):
        if not np.isfinite(value):
            raise UserError(
                f"sample {key}: its latents are not finite numbers; "
                "encode with codec.precision=float32, and look at the weights if that changes nothing"
            )
        if stored_dtype == "float16" and value > torch.finfo(torch.float16).max:
            raise UserError(
                f"sample {key}: its latents reach {value:,.0f}, more than float16 can hold (65,504); "
                "store them with dtype=float32"
            )


def npy_bytes(views: Sequence[Shaped[np.ndarray, "channels height width"]]) -> bytes:
    """One view, or several along a first axis, as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, views[0] if len(views) == 1 else np.stack(views))
    return buffer.getvalue()
