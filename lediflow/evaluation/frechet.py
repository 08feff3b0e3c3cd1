"""Fréchet distance between two sets of features, each summarised by its mean and covariance.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

On Inception-v3 features this is FID (Heusel et al. 2017, arXiv:1706.08500); on others it is named after them.
tr (C_1 C_2)^(1/2) is computed as the sum of the singular values of A_1^T A_2, where C = A A^T: the same number, but
never complex, and accurate for small values, where square roots of eigenvalues of the product lose digits.

Means and covariances are summed over tiles in float64, with equal bits on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.tiles import TILE, Rows, tiles, whole

DIGITS = 52  # one binary digit fewer than float64 has: a rounded sum may need one more


class FeatureStatistics(NamedTuple):
    """Mean and covariance (divided by n - 1) of a set of features, in float64."""

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]


def feature_statistics(
    features: Float[Tensor, "n dim"] | Rows, group: Group | None = None
) -> FeatureStatistics:
    """Mean and covariance of the whole set, on every rank."""
    rows = features if isinstance(features, Rows) else whole(features)
    group = group or Group()
    if rows.total < 2:
        raise ValueError(f"a covariance needs at least 2 images, found {rows.total}; add images")
    mean = sum_over_tiles(rows, group, lambda tile: tile.sum(dim=0)) / rows.total
    here = mean.to(rows.values.device)
    spread = sum_over_tiles(rows, group, lambda tile: (tile - here).square().sum(dim=0))
    grid = common_grid(spread).to(here.device)
    scatter = torch.zeros_like(grid)
    for _, tile in tiles(rows):
        centred = tile - here
        scatter += on_grid(centred.T @ centred, grid)
    return FeatureStatistics(mean, group.sum(scatter) / (rows.total - 1))


class FeatureSums(NamedTuple):
    """Sums over features that arrive in batches; memory does not grow with their number."""

    images: Float[Tensor, ""]  # their number
    first: Float[Tensor, " dim"]
    second: Float[Tensor, "dim dim"]

    @classmethod
    def zero(cls, dim: int) -> FeatureSums:
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in ((), (dim,), (dim, dim))))

    def add(self, batch: Float[Tensor, "batch dim"]) -> None:
        batch = batch.to(self.first)
        self.images.add_(len(batch))
        self.first.add_(batch.sum(dim=0))
        self.second.addmm_(batch.T, batch)

    def statistics(self, group: Group) -> FeatureStatistics:
        """Mean and covariance over all ranks; inaccurate if the mean is much larger than the deviation."""
        count, first, second = (group.sum(values) for values in self)
        mean = first / count
        return FeatureStatistics(mean, (second - count * torch.outer(mean, mean)) / (count - 1))


def sum_over_tiles(
    rows: Rows, group: Group, of: Callable[[Float[Tensor, "rows dim"]], Float[Tensor, " dim"]]
) -> Float[Tensor, " dim"]:
    """Sum of `of(tile)` over all tiles: each rank fills in its tiles, then all are added in the order of the tiles."""
    dim = rows.values.shape[1]
    table = torch.zeros(-(-rows.total // TILE), dim, dtype=torch.float64)
    for number, tile in tiles(rows):
        table[number] = of(tile)
    return group.sum(table).sum(dim=0)


def common_grid(spread: Float[Tensor, " dim"]) -> Float[Tensor, "dim dim"]:
    """Step sizes (powers of two) that make sums of the tiles' scatter matrices exact once these are rounded to them.

    The order of addition then does not matter, so neither does the number of ranks. Entries i, j of any tiles add up to
    at most sqrt(spread_i spread_j) (Cauchy-Schwarz), and sums of multiples of a step are exact up to 2^53 steps.
    """
    deviation = spread.sqrt()
    most = torch.outer(deviation, deviation)
    power = most / torch.frexp(most).mantissa  # the smallest power of two above it, exactly
    return power.nan_to_num_(nan=1.0) * 2.0**-DIGITS  # NaN where a feature never varies


def on_grid(values: Float[Tensor, "dim dim"], grid: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """Round to the nearest multiples of the grid's steps."""
    return (values / grid).round_().mul_(grid)


def frechet_distance(
    mean_1: Float[Tensor, " dim"],
    covariance_1: Float[Tensor, "dim dim"],
    mean_2: Float[Tensor, " dim"],
    covariance_2: Float[Tensor, "dim dim"],
) -> float:
    """d^2 between two Gaussians; 0 if they are equal."""
    mean_1, covariance_1, mean_2, covariance_2 = (
        x.double() for x in (mean_1, covariance_1, mean_2, covariance_2)
    )
    overlap = torch.linalg.svdvals(factor(covariance_1).T @ factor(covariance_2)).sum()
    spread = covariance_1.trace() + covariance_2.trace() - 2 * overlap
    return ((mean_1 - mean_2).square().sum() + spread).item()


def factor(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """A matrix A with covariance = A A^T."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * drop_noise(eigenvalues).sqrt()


def drop_noise(eigenvalues: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
    """Set eigenvalues below rounding error to 0: with fewer images than features their square roots would add up."""
    noise = eigenvalues.abs().amax() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return torch.where(eigenvalues > noise, eigenvalues, 0.0)
