"""Features of real images are computed once and kept under a name that pins what they are of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor


def cached_features(path: Path, compute: Callable[[], Float[Tensor, "n dim"]]) -> Float[Tensor, "n dim"]:
    """Read the features from `path`, or compute and keep them there; the file is whole or absent."""
    if path.is_file():
        return load_file(path)["features"]
    features = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({"features": features.contiguous()}, partial)
    partial.replace(path)
    return features
