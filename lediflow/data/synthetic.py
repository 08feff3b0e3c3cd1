"""Drawn pictures, for tests and for a first try without photographs.

Each shows one soft-edged shape on a plain background. The class is the kind of shape; its position, size, angle and
colours are random. Shapes are signed distances in units of the picture's side, positive inside.
"""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.shards.index import ShardIndex

PixelGrid = Float[np.ndarray, "size size"]

DRAWN_AT = 0  # modification time in seconds, fixed so that pictures drawn again are the same files

SHAPES: dict[str, Callable[[PixelGrid, PixelGrid, float], PixelGrid]] = {
    "bar": lambda u, v, radius: radius / 3 - np.abs(u),
    "disc": lambda u, v, radius: radius - np.hypot(u, v),
    "ring": lambda u, v, radius: radius / 4 - np.abs(np.hypot(u, v) - radius),
    "square": lambda u, v, radius: radius - np.maximum(np.abs(u), np.abs(v)),
}


def synthetic_picture(shape: str, number: int, *, size: int, seed: int) -> UInt8[np.ndarray, "size size 3"]:
    """Picture `number` of a shape: a pure function of its arguments."""
    random = np.random.default_rng([seed, number, list(SHAPES).index(shape)])
    u, v = _turned_grid(size, centre=random.uniform(0.3, 0.7, 2), angle=random.uniform(0, np.pi))
    inside = SHAPES[shape](u, v, random.uniform(0.15, 0.3))
    coverage = np.clip(inside * size + 0.5, 0, 1)[..., None]
    background, ink = random.uniform(0, 100, 3), random.uniform(155, 255, 3)
    return np.rint(background + coverage * (ink - background)).astype(np.uint8)


def make_synthetic_images(
    folder: Path, count: int, *, size: int = 32, seed: int = 0, classes: int = 2
) -> None:
    """Write `count` pictures as PNG, one folder per class; classes=0 writes discs into `folder` itself."""
    kinds = list(SHAPES)[:classes]
    for number in range(count):
        kind = kinds[number % classes] if kinds else "disc"
        path = (folder / kind if kinds else folder) / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(synthetic_picture(kind, number, size=size, seed=seed)).save(path)
        os.utime(path, (DRAWN_AT, DRAWN_AT))


def make_synthetic_shards(folder: Path, count: int, size: int, channels: int, *, seed: int = 0) -> ShardIndex:
    """Make image shards of drawn pictures in two classes; finished shards of the same arguments are reused."""
    with TemporaryDirectory() as scratch:
        pictures = Path(scratch, f"synthetic-seed{seed}")
        make_synthetic_images(pictures, count, size=size, seed=seed)
        mode = {1: "grey", 3: "rgb"}[channels]
        options = PrepareConfig(source=str(pictures), output=str(folder), size=size, mode=mode, workers=1)
        return prepare(options).index


def _turned_grid(size: int, centre: Float[np.ndarray, " 2"], angle: float) -> tuple[PixelGrid, PixelGrid]:
    pixels = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(pixels - centre[0], pixels - centre[1])
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
