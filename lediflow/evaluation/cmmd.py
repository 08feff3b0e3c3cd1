"""Squared maximum mean discrepancy with a Gaussian kernel: how far apart two sets of embeddings are.

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(a, b) = exp(-|a - b|^2 / (2 sigma^2))

On unit-norm CLIP ViT-L/14@336 embeddings with sigma = 10 and scale = 1000 this is CMMD (Jayasumana et al.
2023, arXiv:2401.09603); on other embeddings it is an MMD and is named after them (`metrics.metric_name`).

Everything is float64. The three means are all close to 1 and nearly cancel, so k - 1 = expm1(.) is averaged
instead of k: the ones cancel exactly, and two digits are won.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2048  # rows per block of the kernel matrix: 32 MB in float64


def cmmd(
    x: Float[Tensor, "n dim"],
    y: Float[Tensor, "m dim"],
    *,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
) -> float:
    """scale * MMD^2 of the embeddings as given (not normalised again).

    Biased: each set's mean includes k(x, x) = 1; never negative. Unbiased: it does not; zero on average for
    two samples of one distribution, so it may come out below zero.
    """
    check_embeddings(x, y, fewest=2 if unbiased else 1)
    x, y = x.double(), y.double()
    within = self_similarity(x, sigma, unbiased) + self_similarity(y, sigma, unbiased)
    return scale * (within - 2 * cross_similarity(x, y, sigma))


def self_similarity(x: Float[Tensor, "n dim"], sigma: float, unbiased: bool) -> float:
    """Mean of k - 1 over the pairs of one set. Only half the matrix is computed: it is symmetric."""
    n = len(x)
    total = 0.0
    for start, rows in blocks(x):
        total += kernel_minus_one(rows, rows, sigma).fill_diagonal_(0.0).sum().item()
        for _, columns in blocks(x[start + len(rows) :]):
            total += 2 * kernel_minus_one(rows, columns, sigma).sum().item()
    return total / (n * (n - 1) if unbiased else n * n)


def cross_similarity(x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"], sigma: float) -> float:
    """Mean of k - 1 over all pairs of two sets."""
    total = sum(
        kernel_minus_one(rows, columns, sigma).sum().item()
        for _, rows in blocks(x)
        for _, columns in blocks(y)
    )
    return total / (len(x) * len(y))


def kernel_minus_one(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"], sigma: float
) -> Float[Tensor, "rows columns"]:
    """k(a, b) - 1 for every pair."""
    squared_norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    squared_distances = torch.addmm(squared_norms, a, b.T, alpha=-2).clamp_(min=0)
    return squared_distances.div_(-2 * sigma**2).expm1_()


def blocks(x: Float[Tensor, "n dim"]) -> Iterator[tuple[int, Float[Tensor, "rows dim"]]]:
    """(first row, rows) of each block."""
    for start in range(0, len(x), BLOCK):
        yield start, x[start : start + BLOCK]


def check_embeddings(x: Tensor, y: Tensor, fewest: int) -> None:
    """Refuses what no MMD can be computed from."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"cannot compare embeddings of shapes {tuple(x.shape)} and {tuple(y.shape)}; "
            "both must be (count, dim) with the same dim: use one feature extractor for both sets"
        )
    if min(len(x), len(y)) < fewest:
        raise ValueError(
            f"{len(x)} and {len(y)} embeddings, at least {fewest} needed in each set; add images"
        )


class Distance(NamedTuple):
    """The exact value lies between `value` and `value + error_bound`."""

    value: float
    error_bound: float


WEIGHT = 1000.0 * math.exp(-1 / 100)  # before the sum over p
TAIL = math.fsum(1 / (100**p * math.factorial(p)) for p in range(3, 9))  # the terms dropped, but for 1e-23


class StreamingCMMD:
    """The biased CMMD (sigma 10, scale 1000) of unit-norm embeddings, in one pass and without keeping them.

    For unit vectors k(a, b) = e^(-1/100) exp(a.b / 100), and the mean of (a.b)^p over two sets is the inner
    product of their mean p-fold outer products M_p. Hence

        CMMD = 1000 e^(-1/100) sum_{p >= 1} |M_p(X) - M_p(Y)|^2 / (100^p p!)

    of which the first two terms are kept: m_1 the mean embedding, M_2 the mean outer product. Sums of several
    ranks add up: `merge` them, or all-reduce `count`, `first` and `second`.
    """

    NORM_TOLERANCE = 1e-3  # float16 embeddings pass; features that nobody normalised do not

    def __init__(self, dim: int, device: torch.device | str = "cpu"):
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.first = torch.zeros(dim, dtype=torch.float64, device=device)
        self.second = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def update(self, x: Float[Tensor, "batch dim"]) -> Self:
        """Adds embeddings to the set."""
        self.check(x)
        x = x.to(self.first)
        self.count += len(x)
        self.first += x.sum(dim=0)
        self.second.addmm_(x.T, x)
        return self

    def merge(self, other: "StreamingCMMD") -> Self:
        """Adds another set's embeddings to this one."""
        self.count += other.count
        self.first += other.first
        self.second += other.second
        return self

    def distance(self, other: "StreamingCMMD") -> Distance:
        """CMMD between the two sets, and the most that the dropped terms can add to it."""
        if min(self.count.item(), other.count.item()) < 1:
            raise ValueError(
                "CMMD of an empty set of embeddings; call update with at least one batch on both sides"
            )
        (m_1, m_2), (other_m_1, other_m_2) = self.means(), other.means()
        kept = squared_norm(m_1 - other_m_1) / 100 + squared_norm(m_2 - other_m_2) / 20_000
        # unit vectors: (a.b)^p <= (a.b)^2 for p > 2, so |M_p| <= |M_2|; a difference is at most the sum
        dropped = (m_2.norm() + other_m_2.norm()).item() ** 2 * TAIL
        return Distance(WEIGHT * kept, WEIGHT * dropped)

    def means(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, "dim dim"]]:
        """m_1 and M_2 of the set."""
        return self.first / self.count, self.second / self.count

    def check(self, x: Tensor) -> None:
        """Refuses embeddings of another size or another norm."""
        dim = len(self.first)
        if x.ndim != 2 or x.shape[1] != dim:
            raise ValueError(
                f"embeddings of shape {tuple(x.shape)} for a StreamingCMMD of dim {dim}; pass (batch, {dim})"
            )
        worst = (x.double().norm(dim=1) - 1).abs().amax().item() if len(x) else 0.0
        if not worst <= self.NORM_TOLERANCE:
            raise ValueError(
                f"embedding norms are off 1 by up to {worst:.3g}; normalise them first (features.unit)"
            )


def squared_norm(x: Float[Tensor, "..."]) -> float:
    """Sum of squares."""
    return x.square().sum().item()
