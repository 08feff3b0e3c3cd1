"""Where each rank's time goes, step by step, and who holds the others up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

NAMES = ("step", "data", "communication", "work")


class Timings:
    """`of` around what is timed, `end_step` once a step, `row` once a window."""

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time the body; several of one step are added up."""
        yield

    def end_step(self) -> None:
        """One step is over."""

    def row(self) -> Float[Tensor, " values"]:
        """Quantiles of this rank's window, for `engine.gather`; a new window begins."""
        return torch.zeros(3 * len(NAMES), dtype=torch.float64)

    def hook(self, owner: Any, names: Sequence[str]) -> None:
        """Replace methods of `owner` by timed ones."""


def table(gathered: Float[Tensor, "ranks values"]) -> dict[str, list[float]]:
    """`data_p50: [a number per rank]` ... of every rank's row."""
    return {}


def stragglers(table: Mapping[str, Sequence[float]], factor: float = 1.5) -> str | None:
    """Which rank holds the others up, in a sentence."""
    return None
