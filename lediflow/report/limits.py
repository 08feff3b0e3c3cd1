"""Keeps a page below its size: a page of large pictures or many curves has fewer and smaller ones.

Limits are tried from the loosest on until the page fits. Pictures while training have room of their own (`pictures`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from lediflow.report.content import Picture, PriorExample, ReportData, StepComparison

PAGE_BYTES = 4_900_000


class Limits(NamedTuple):
    """How much a page shows."""

    samples: int  # pictures in each grid of the first section
    row: int  # pictures in a row of the comparison of steps
    side: int | None  # longest side of a picture in pixels; None: as it is
    points: int  # of all curves


LIMITS = (
    Limits(36, 1000, None, 90_000),
    Limits(16, 8, 192, 60_000),
    Limits(12, 6, 128, 40_000),
    Limits(8, 5, 96, 20_000),
    Limits(6, 4, 64, 10_000),
)


def limited(data: ReportData, limits: Limits) -> ReportData:
    """The content with no more than the limits allow."""
    count = min(len(data.samples), len(data.photographs) or len(data.samples), limits.samples)
    return replace(
        data,
        samples=shrunk(data.samples[:count], limits.side),
        photographs=shrunk(data.photographs[:count], limits.side),
        step_comparison=data.step_comparison and limited_steps(data.step_comparison, limits),
        priors=[shrunk_prior(example, limits.side) for example in data.priors],
    )


def limited_steps(comparison: StepComparison, limits: Limits) -> StepComparison:
    """The first pictures of each row."""
    pictures = {
        method: [shrunk(row[: limits.row], limits.side) for row in rows]
        for method, rows in comparison.pictures.items()
    }
    return replace(comparison, pictures=pictures)


def shrunk_prior(example: PriorExample, side: int | None) -> PriorExample:
    """The example with its pictures and sigma at the same smaller size."""
    factor = reduction(example.photograph, side)
    photograph, mean, draw = shrunk([example.photograph, example.mean, example.draw], side)
    result = None if example.result is None else shrunk([example.result], side)[0]
    sigma = example.sigma[::factor, ::factor]
    return PriorExample(photograph=photograph, mean=mean, sigma=sigma, draw=draw, result=result)


def shrunk(pictures: Sequence[Picture], side: int | None) -> list[Picture]:
    """The pictures with means of blocks as pixels, where they are larger than `side`."""
    factors = [reduction(picture, side) for picture in pictures]
    return [
        picture if factor == 1 else np.asarray(Image.fromarray(picture.squeeze()).reduce(factor))
        for picture, factor in zip(pictures, factors, strict=True)
    ]


def reduction(picture: Picture, side: int | None) -> int:
    """By which whole number a picture is divided."""
    return 1 if side is None else -(-max(picture.shape[:2]) // side)
