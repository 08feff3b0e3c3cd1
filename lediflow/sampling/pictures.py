"""Image files 000000.png, 000001.png, ... Images are bytes only here and in the shards, else float in [-1, 1]."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lediflow.codecs import signal_to_bytes
from lediflow.data.sources.names import is_picture_name
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError


def picture_arrays(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Convert images in [-1, 1] to bytes, channels last."""
    return rearrange(signal_to_bytes(images).cpu(), "b c h w -> b h w c").numpy()


def picture_name(number: int) -> str:
    """File name of image `number`."""
    return f"{number:06d}.png"


def save_pictures(
    images: Float[Tensor, "batch channels height width"], folder: Path, numbers: Sequence[int] | None = None
) -> dict[str, str]:
    """Write images in [-1, 1] as PNG files named by `numbers` (0, 1, ... if None), each atomically.

    Returns file name -> SHA-256. Raises UserError if the folder cannot be written.
    """
    hashes = {}
    for number, array in zip(numbers or range(len(images)), picture_arrays(images), strict=True):
        content = BytesIO()
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(content, "PNG")
        with whole_or_absent(folder / picture_name(number), is_flushed=False) as stream:
            stream.write(content.getbuffer())
        hashes[picture_name(number)] = hashlib.sha256(content.getbuffer()).hexdigest()
    return hashes


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name; UserError if there are none."""
    found = folder.iterdir() if folder.is_dir() else ()
    files = sorted(path for path in found if is_picture_name(path.name))
    if not files:
        raise UserError(f"no pictures in {folder}; give the folder that lediflow.sample wrote")
    return files
