"""Grids of generated images: the first of each method and number of steps, not selected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lediflow.errors import UserError
from lediflow.sampling.grids import labelled_grid

COLUMNS, LARGEST = 8, 128  # images in a row; pixels of a side, to which larger images are reduced
SHORT = {"fm": "FM", "wide": "LeDiFlow", "wide_map": "LeDiFlow, flow map"}
Setting = tuple[str, str, int]  # method, solver, steps
FLOWS: list[Setting] = [
    ("fm", "midpoint", 1),
    ("fm", "midpoint", 4),
    ("wide", "midpoint", 1),
    ("wide", "midpoint", 2),
    ("wide", "midpoint", 4),
]

# a row of images each, by picture in docs/images
GRIDS: dict[str, list[Setting]] = {
    "comparison_samples": [
        *(("fm", "euler", 1), ("wide", "euler", 1), ("wide_map", "jump", 1)),
        *(("fm", "midpoint", 1), ("wide", "midpoint", 1), ("wide_map", "jump", 2)),
        *(("fm", "midpoint", 2), ("wide", "midpoint", 2), ("wide_map", "jump", 4)),
        *(("fm", "midpoint", 4), ("wide", "midpoint", 4)),
    ],
    "comparison_samples_few": [
        ("fm", "midpoint", 1),
        ("fm", "midpoint", 4),
        ("wide", "midpoint", 2),
        ("wide_map", "jump", 1),
        ("wide_map", "jump", 2),
    ],
    "comparison_samples_classes": FLOWS,
    "comparison_samples_landscapes128": FLOWS,
    "comparison_samples_faces256c": FLOWS,
}


def samples_grid(folder: Path, settings: Sequence[Setting]) -> Image.Image:
    """The first images of each setting: a row each, a seed in each column."""
    rows, labels = [], []
    for method, solver, steps in settings:
        strip = np.asarray(Image.open(pictures_of(folder, method, solver, steps)).convert("RGB"))
        images = np.split(strip, strip.shape[1] // strip.shape[0], axis=1)[:COLUMNS]
        rows.append(np.stack([reduced(image) for image in images]))
        count, noun = steps * (2 if solver == "midpoint" else 1), "call" if solver == "jump" else "evaluation"
        labels.append(f"{SHORT[method]}\n{count} {noun}{'' if count == 1 else 's'}")
    return labelled_grid(rows, labels)


def reduced(image: np.ndarray) -> np.ndarray:
    """An image of LARGEST pixels a side at most."""
    if image.shape[0] <= LARGEST:
        return image
    return np.asarray(Image.fromarray(image).resize((LARGEST, LARGEST), Image.Resampling.LANCZOS))


def pictures_of(folder: Path, method: str, solver: str, steps: int) -> Path:
    """The strip of images that a campaign kept of a method with a solver."""
    path = folder / f"quality_{method}/pictures/{solver}-{steps}.png"
    if not path.is_file():
        raise UserError(
            f"no pictures {path}: --samples is the --folder of a finished tools/campaign/comparison.py"
        )
    return path
