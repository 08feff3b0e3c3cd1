"""A direction in the space of z or w that separates pictures with an attribute from pictures without it.

means   from the mean of the pictures without the attribute to the mean of those with it
probe   of a linear classifier: C^-1 (difference of means), with C the covariance inside the sets. It leaves out what
        varies anyway, and needs more pictures than dimensions to be much better. C is shrunk towards a multiple of the
        identity as by Ledoit and Wolf (2004), since it is estimated from few pictures

The score of a picture is its coordinate along the direction (of length 1). The unit of strength is the standard
deviation of the scores inside the sets, so strength 1 moves a picture as far as pictures of one kind differ anyway, and
strength `separation` moves the mean of one set to the mean of the other. Everything is fitted on one half of each set.

The test is the AUC on the other half: the probability that a picture with the attribute has a higher score than one
without. Its interval inverts the score test with the variance of Hanley and McNeil (1982), as Newcombe (2006) advises;
unlike the usual ones it has a width at an AUC of 1, too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.errors import UserError

Z_95 = 1.959964  # of a two-sided 95 % interval
HALVINGS = 60  # of the interval that holds a limit of the AUC

Features = Float[Tensor, "pictures dims"]
Vector = Float[Tensor, " dims"]


class Direction(NamedTuple):
    """A vector of length 1, float32 in the shape of z, and what strengths along it mean."""

    vector: Float[Tensor, "latent_channels h w"]
    space: str  # z or w
    estimator: str  # means or probe
    unit: float  # length of strength 1
    separation: float  # between the means of the sets, in units
    spread: float  # distance of pictures from the mean of their set, root mean square
    test: dict[str, float]  # auc, auc_low, auc_high

    def record(self) -> dict[str, Any]:
        """All but the vector, for edit.json and files."""
        return {name: value for name, value in self._asdict().items() if name != "vector"}


def fitted(
    having: Float[Tensor, "pictures latent_channels h w"],
    lacking: Float[Tensor, "others latent_channels h w"],
    *,
    space: str,
    estimator: str,
) -> Direction:
    """The direction from features of the halves to fit on, not tested yet. UserError if they do not differ at all."""
    sets = [features.flatten(1).double() for features in (having, lacking)]
    difference = sets[0].mean(dim=0) - sets[1].mean(dim=0)
    inside = torch.cat([one - one.mean(dim=0) for one in sets])
    vector = torch.linalg.solve(shrunk_covariance(inside), difference) if estimator == "probe" else difference
    if not vector.norm() > 0:
        raise UserError(
            "the two sets have equal means in the latent space, so there is no direction between them; give pictures "
            "that differ in the attribute"
        )
    vector = vector / vector.norm()
    unit = (inside @ vector).square().sum().div(len(inside) - 2).sqrt().item()
    spread = inside.square().sum(dim=1).mean().sqrt().item()
    if not unit > 0:
        raise UserError(
            "the pictures of each set are all alike, so strengths have no unit; give more of them, and more varied"
        )
    separation = (difference @ vector).item() / unit
    return Direction(vector.float().reshape(having.shape[1:]), space, estimator, unit, separation, spread, {})


def with_test(
    direction: Direction,
    having: Float[Tensor, "pictures latent_channels h w"],
    lacking: Float[Tensor, "others latent_channels h w"],
) -> Direction:
    """The direction with its AUC on features of the halves to test on."""
    auc = area_under_curve(scores(direction, having), scores(direction, lacking))
    low, high = auc_interval(auc, len(having), len(lacking))
    return direction._replace(test={"auc": auc, "auc_low": low, "auc_high": high})


def scores(
    direction: Direction, features: Float[Tensor, "pictures latent_channels h w"]
) -> Float[Tensor, " pictures"]:
    """The coordinate of each picture along the direction, float64."""
    return features.flatten(1).double() @ direction.vector.flatten().double().to(features.device)


def shrunk_covariance(centred: Features) -> Float[Tensor, "dims dims"]:
    """Covariance of centred features, shrunk by Ledoit and Wolf's estimate of the best share of the identity.

    Their S = X^T X / n, m = tr(S) / p, d^2 = |S - m I|^2, b^2 = min(d^2, sum_k |x_k x_k^T - S|^2 / n^2); the result is
    b^2/d^2 m I + (1 - b^2/d^2) S. "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    count, dims = centred.shape
    covariance = centred.T @ centred / count
    identity = torch.eye(dims, dtype=centred.dtype, device=centred.device) * covariance.trace() / dims
    distance = (covariance - identity).square().sum()
    fourth = centred.square().sum(dim=1).square().sum()
    error = (fourth - count * covariance.square().sum()) / count**2
    share = (error / distance).clamp(0, 1) if distance > 0 else torch.ones_like(distance)
    return share * identity + (1 - share) * covariance


def area_under_curve(having: Float[Tensor, " m"], lacking: Float[Tensor, " n"]) -> float:
    """Share of pairs in which the first score is the higher one; ties count half. It is the Mann-Whitney statistic."""
    ordered = lacking.sort().values
    lower, not_higher = (
        torch.searchsorted(ordered, having.contiguous(), right=right) for right in (False, True)
    )
    return ((lower + not_higher).double() / 2).mean().item() / len(lacking)


def auc_interval(auc: float, having: int, lacking: int) -> tuple[float, float]:
    """95 % limits: the values whose distance from `auc` is Z_95 of their own standard errors."""

    def limit(inside: float, outside: float) -> float:
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            if abs(auc - middle) <= Z_95 * standard_error(middle, having, lacking):
                inside = middle
            else:
                outside = middle
        return inside

    return limit(auc, 0.0), limit(auc, 1.0)


def standard_error(auc: float, having: int, lacking: int) -> float:
    """Hanley and McNeil's standard error of an AUC, for scores with exponential tails."""
    both_high, both_low = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (having - 1) * (both_high - auc**2) + (lacking - 1) * (both_low - auc**2)
    return math.sqrt(max(variance, 0.0) / (having * lacking))


def doubts(direction: Direction) -> list[str]:
    """A warning if the direction does not separate the held-out pictures."""
    auc, low, high = (direction.test[name] for name in ("auc", "auc_low", "auc_high"))
    if low > 0.5:
        return []
    below = "held-out pictures with the attribute lie on the other side" if high < 0.5 else "0.5 is chance"
    return [
        f"this direction carries nothing that held-out pictures show: AUC {auc:.2f} (95 % interval {low:.2f} to "
        f"{high:.2f}; {below}). Give more pictures, sets that differ in nothing else, or the other method or space"
    ]
