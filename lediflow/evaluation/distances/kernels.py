"""Kernels: how alike two embeddings are.

`Gaussian` leaves out a constant 1: kernel values of embeddings are all close to 1 and nearly cancel in the MMD, so
k - 1 = expm1(.) is summed instead; the ones cancel exactly, and two digits are won.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Kernel(Protocol):
    """k(a, b), less a constant."""

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]: ...

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        """k(a, a) of each row, less the same constant."""


@dataclass(frozen=True)
class Gaussian:
    """exp(-|a - b|^2 / (2 sigma^2)) - 1; CMMD has sigma = 10."""

    sigma: float = 10.0

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]:
        norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
        squared_distances = norms.addmm_(a, b.T, alpha=-2).clamp_(min=0)
        return squared_distances.div_(-2 * self.sigma**2).expm1_()

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        return a.new_zeros(len(a))


@dataclass(frozen=True)
class Polynomial:
    """(a.b / dim + 1)^degree; KID has degree 3 (Bińkowski et al. 2018, arXiv:1801.01401)."""

    degree: int = 3

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]:
        return (a @ b.T).div_(a.shape[1]).add_(1).pow_(self.degree)

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        return (a.square().sum(dim=1) / a.shape[1] + 1) ** self.degree
