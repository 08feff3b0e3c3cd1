"""Folders of photographs of noise with masks and a key, for anonymisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from harness.edited import SIZE

SECRET = bytes(range(160, 192))
BOX = (4, 5, 12, 13)
INSIDE = np.zeros((SIZE, SIZE), dtype=bool)
INSIDE[5:13, 4:12] = True
GENERATOR = np.random.default_rng(0)


def folders_in(root: Path) -> Path:
    """A key, and empty folders for photographs and masks."""
    (root / "face.key").write_bytes(SECRET)
    (root / "face.key").chmod(0o600)
    for name in ("photographs", "masks"):
        (root / name).mkdir()
    return root


def add(
    root: Path,
    name: str,
    *boxes: tuple[int, int, int, int],
    size: tuple[int, int] = (SIZE, SIZE),
    content: Callable[[Image.Image], bytes] | None = None,
) -> np.ndarray:
    """A photograph of noise (or `content`), with a mask of these boxes."""
    image = Image.fromarray(GENERATOR.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    path = root / "photographs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        image.save(path)
    else:
        path.write_bytes(content(image))
    mask = Image.new("L", size)
    for box in boxes or (BOX,):
        mask.paste(255, box)
    target = (root / "masks" / name).with_suffix(".png")
    target.parent.mkdir(parents=True, exist_ok=True)
    mask.save(target)
    return np.asarray(Image.open(path).convert("RGB"))


def options_of(root: Path, output: str) -> tuple[str, ...]:
    return (
        f"output={root / output}", f"source={root}/photographs", f"masks={root}/masks", f"key={root}/face.key",
        "latent_solver=midpoint",
    )  # fmt: skip


def result(root: Path, number: int, output: str = "out") -> np.ndarray:
    return np.asarray(Image.open(root / output / f"{number:06d}.png"))
