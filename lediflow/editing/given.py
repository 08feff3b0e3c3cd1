"""What a caller of the pipeline's methods gives: PIL images as files come out when they are decoded, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image, ImageOps

from lediflow.data.pixels import SIXTEEN_BITS, UnusableImageError, eight_bits
from lediflow.editing.config import MOST_PICTURES
from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

OUTPUTS = ("pil", "pt")
JPEGS = ("JPEG", "MPO")  # formats of Pillow
OutputType = Literal["pil", "pt"]
Generator = int | torch.Generator | None


@dataclass(kw_only=True)
class Amounts:
    """Numbers of the methods, by their names there; OutOfRangeError for one that is out of its range."""

    num_images_per_prompt: int = bounded(1, at_least=1, at_most=MOST_PICTURES)
    num_frames: int = bounded(9, at_least=2, at_most=1000)
    blur: float = bounded(0.0, at_least=0, at_most=1000)

    def __post_init__(self) -> None:
        check_ranges(self)


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has 16 bits per channel. Pillow opens grey PNGs of 16 bits in mode I, too."""
    return image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))


def upright(given: Any, name: str) -> Image.Image:
    """A PIL image turned as its EXIF orientation says, in 8 bits per channel. UserError for anything else."""
    if not isinstance(given, Image.Image):
        raise UserError(
            f"{name} is a {type(given).__name__}; give a PIL image: PIL.Image.open(FILE), or PIL.Image.fromarray(BYTES)"
        )
    try:
        reduced = eight_bits(given, b"") if is_deep(given) or given.mode == "F" else given
    except UnusableImageError as error:
        raise UserError(f"{name} is {error}") from error
    return ImageOps.exif_transpose(reduced)


def for_each(name: str, given: Any, count: int) -> list[Any]:
    """The values of a list for each of `count` images, or one value for all of them. UserError for another length."""
    if not isinstance(given, Sequence):
        return [given] * count
    if len(given) != count:
        raise UserError(
            f"{name} has {len(given)} entries for {count} images; give one for each, or one for all"
        )
    return list(given)


def seed_of(generator: Generator) -> int:
    """The seed that a generator stands for; UserError for what is neither a seed nor a generator."""
    if isinstance(generator, torch.Generator):
        return generator.initial_seed() % 2**64
    if generator is not None and not isinstance(generator, int):
        raise UserError(
            f"generator is a {type(generator).__name__}; give a seed, or a torch.Generator, whose initial seed is taken"
        )
    return (generator or 0) % 2**64
