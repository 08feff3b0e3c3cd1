"""Means over samples, independent of how they were split into batches and ranks.

Everything a stage reports about a batch is added to one vector of sums on the device: that costs a few small kernels
and waits for nothing. The vectors of the ranks are summed once, when the means are computed.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from lediflow.stages.protocol import StageLoss

Values = dict[str, Any]


class Totals:
    """Sums over the batches of this rank; every rank must add equally many batches."""

    def __init__(self) -> None:
        self.sums: Float64[Tensor, " entries"] | None = None

    def add(self, result: StageLoss, is_counted: bool = True) -> None:
        """Add a batch. A batch that is not counted adds zeros, on ranks that have fewer samples than others."""
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
        """`values` followed by this rank's sums, for one message to the others."""
        assert self.sums is not None, "nothing was added"
        return torch.cat([torch.tensor(values, dtype=torch.float64, device=self.sums.device), self.sums])

    def samples(self, total: Float64[Tensor, " entries"]) -> int:
        """Number of samples in a sum over ranks."""
        return int(total[0])

    def means(self, total: Float64[Tensor, " entries"]) -> Values:
        """Means from a sum over ranks, by name: a number per metric, a list per binned value (None: empty bin)."""
        samples, *sums = total[: 1 + len(self.names)].tolist()
        means: Values = {name: value / samples for name, value in zip(self.names, sums, strict=True)}
        rest = total[1 + len(self.names) :]
        for name, bins in self.bins.items():
            both, rest = rest[: 2 * bins].tolist(), rest[2 * bins :]
            means[name] = [
                part / count if count else None for part, count in zip(both[:bins], both[bins:], strict=True)
            ]
        return means
