"""Squared maximum mean discrepancy (MMD) of two sets of embeddings with a Gaussian kernel.

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(a, b) = exp(-|a - b|^2 / (2 sigma^2))

On unit-norm CLIP ViT-L/14@336 embeddings with sigma = 10 and scale = 1000 this is CMMD (Jayasumana et al.
2023, arXiv:2401.09603); on other embeddings it is an MMD and is named after them (`metrics.metric_name`).

`cmmd` and `cmmd_estimate` are exact: float64, over all pairs, in blocks, on any number of ranks. `StreamingCMMD` keeps
two moments instead: one pass over the embeddings, and memory independent of the number of images.
"""

from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.distances.mmd import (
    Estimate,
    Gaussian,
    biased_mmd,
    estimate,
    kernel_sums,
    unbiased_mmd,
)
from lediflow.evaluation.distances.streaming import Distance, StreamingCMMD
from lediflow.evaluation.distances.tiles import Rows, check_count, whole

__all__ = ["Distance", "StreamingCMMD", "cmmd", "cmmd_estimate"]

SIGMA, SCALE = 10.0, 1000.0


def cmmd(
    x: Float[Tensor, "n dim"],
    y: Float[Tensor, "m dim"],
    *,
    sigma: float = SIGMA,
    scale: float = SCALE,
    unbiased: bool = False,
) -> float:
    """scale * MMD^2 of the embeddings as given (not normalised again), on the device they are on.

    Biased: the mean within a set includes k(x, x) = 1; never negative. Unbiased: it excludes them; its expectation is
    zero for two samples of one distribution, so it can be negative.
    """
    check_count(len(x), len(y), fewest=2 if unbiased else 1)
    sums = kernel_sums(whole(x), whole(y), Gaussian(sigma), Group())
    return scale * (unbiased_mmd(sums) if unbiased else biased_mmd(sums))


def cmmd_estimate(x: Rows, y: Rows, group: Group, *, sigma: float = SIGMA, scale: float = SCALE) -> Estimate:
    """Biased and unbiased value with a confidence interval, of sets spread over the ranks; same bits on any number."""
    return estimate(kernel_sums(x, y, Gaussian(sigma), group), scale)
