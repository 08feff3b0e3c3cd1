"""Means over samples, whatever batches and ranks they came in.

Everything a stage reports of a batch is kept as one vector of sums on the device: adding a batch costs a few small
kernels and waits for nothing. The ranks' vectors meet once, when the means are asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from lediflow.stages.protocol import StageLoss

Values = dict[str, Any]


class Totals:
    """Sums since the start, of which every rank must have added as many batches as the others."""

    def __init__(self) -> None:
        self.sums: Float64[Tensor, " entries"] | None = None

    def add(self, result: StageLoss, is_counted: bool = True) -> None:
        """Add a batch; one that is not counted lends its shape only, on ranks that have fewer samples than others."""
        entries = self.entries(result)
        if not is_counted:
            entries = torch.zeros_like(entries)  # not a product: 0 x nan is nan
        if self.sums is None:
            self.names, self.bins = (
                [*result.metrics],
                {key: len(bins.sums) for key, bins in result.bins.items()},
            )
            self.sums = torch.zeros_like(entries)
        self.sums += entries

    def entries(self, result: StageLoss) -> Float64[Tensor, " entries"]:
        """The batch's sums in one vector: number of samples, metrics, then sums and counts of the bins."""
        samples = len(result.per_sample)
        metrics = torch.stack([torch.ones_like(result.loss.detach()), *result.metrics.values()]) * samples
        return torch.cat([metrics, *(part for bins in result.bins.values() for part in bins)]).double()

    def with_extra(self, values: list[float]) -> Float64[Tensor, " extra_and_entries"]:
        """This rank's sums behind some values of its own, for one message to the others."""
        assert self.sums is not None, "nothing was added"
        return torch.cat([torch.tensor(values, dtype=torch.float64, device=self.sums.device), self.sums])

    def samples(self, total: Float64[Tensor, " entries"]) -> int:
        """How many samples the sum over ranks is of."""
        return int(total[0])

    def means(self, total: Float64[Tensor, " entries"]) -> Values:
        """Names and values of the sum over ranks: a number per metric, a list per binned value (None: empty bin)."""
        samples, *sums = total[: 1 + len(self.names)].tolist()
        means: Values = {name: value / samples for name, value in zip(self.names, sums, strict=True)}
        rest = total[1 + len(self.names) :]
        for name, bins in self.bins.items():
            both, rest = rest[: 2 * bins].tolist(), rest[2 * bins :]
            means[name] = [
                part / count if count else None for part, count in zip(both[:bins], both[bins:], strict=True)
            ]
        return means
