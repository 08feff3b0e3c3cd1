"""Running averages of the weights, and averages of any width made from them after the run.

Averages are kept in float32, over the part of the weights that this rank owns, on the image clock. `ema` is an
exponential average whose half-life grows with the run's age, so that the first, poor weights are forgotten: half-life
= min(half_life_images, ramp * images seen). `ema_<sigma_rel>` are the power-function averages of EDM2 (section 3): the
weight of time tau in the average at t is proportional to tau^gamma, and sigma_rel is the width of this profile
relative to the run's length. `best` is a copy of `ema` at the best validation, in host memory.

Afterwards (section 3.2 and the appendix on post-hoc EMA): a power-function average stored at t holds the weights'
history with the density (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t]. The density of the requested width is fitted
by a sum of the stored ones, least squares over [0, T] under the condition that it is a density; the same sum of the
stored weights is the average.
Source: Karras et al. 2024, arXiv:2312.02696.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

HALF_LIFE, BEST = "ema", "best"
WIDEST = 0.28  # limit of sigma_rel: there gamma approaches 0, a plain mean of all weights


@dataclass(kw_only=True)
class EMAConfig:
    """Which averages of the weights a run keeps."""

    # of the average `ema`; longer: smoother weights that lag behind
    half_life_images: int = bounded(50_000, at_least=0)
    # largest half-life of a young run, as a share of the images seen so far
    ramp: float = bounded(0.1, at_least=0)
    # widths of further averages, from which any other can be made later; [] keeps none and saves their memory
    sigma_rels: list[float] = bounded(
        default_factory=lambda: [0.05, 0.10], above=0, below=WIDEST, is_distinct=True
    )

    def __post_init__(self) -> None:
        check_ranges(self, "train.ema.")
        for width in self.sigma_rels:
            if round(width, 3) != width:  # names of roles have three decimals
                raise ValueError(f"train.ema.sigma_rels: {width} has more than three decimals; round it")


def refuse_new_widths(config: EMAConfig, kept: Iterable[str]) -> None:
    """UserError for widths that a continued run did not average from its start; `kept` are keys of its state."""
    roles_kept = {role for key in kept if (role := key.partition("/")[0]).startswith(HALF_LIFE)}
    if new := [width for width in config.sigma_rels if role_of(width) not in roles_kept]:
        raise UserError(
            f"train.ema.sigma_rels: {new} were not kept from the start of this run (kept: {sorted(roles_kept)}). Leave "
            "them out: other widths are made afterwards, by python -m lediflow.checkpoint export RUN --ema WIDTH"
        )


def role_of(sigma_rel: float) -> str:
    """The role of a power-function average: `ema_0.050` for 0.05."""
    return f"{HALF_LIFE}_{sigma_rel:.3f}"


def roles(config: EMAConfig) -> tuple[str, ...]:
    """The roles of all averages of a run."""
    return (HALF_LIFE, *map(role_of, config.sigma_rels))


def decays_for(config: EMAConfig, images_seen: int, batch: int) -> dict[str, float]:
    """Weight of each old average after a batch of `batch` images that ends at `images_seen`, in [0, 1)."""
    half_life = min(config.half_life_images, config.ramp * images_seen)
    decays = {HALF_LIFE: 0.5 ** (batch / half_life) if half_life > 0 else 0.0}
    rest = 1 - batch / images_seen
    return decays | {role_of(width): rest ** (gamma_of(width) + 1) for width in config.sigma_rels}


def sigma_rel_of(gamma: float) -> float:
    """Standard deviation of the density (gamma + 1) tau^gamma on [0, 1]; inverse of `gamma_of`."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


@lru_cache
def gamma_of(sigma_rel: float) -> float:
    """The exponent of a profile of width `sigma_rel`: the root of a cubic (see `sigma_rel_of`), by bisection."""
    low, high = 0.0, 1 / sigma_rel  # sigma_rel(gamma) falls, and is below 1 / gamma
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return (low + high) / 2


class Averages:
    """The averages of tensors that an optimizer updates in place; `tensors[role]` is in the order of the weights."""

    def __init__(self, weights: Sequence[Tensor], roles: Sequence[str]) -> None:
        self.weights = [weight.detach() for weight in weights]
        self.are_float32 = all(weight.dtype == torch.float32 for weight in self.weights)
        self.tensors = {role: [initial_average(weight, role) for weight in self.weights] for role in roles}

    @torch.no_grad()
    def update(self, decays: Mapping[str, float]) -> None:
        """average <- decay * average + (1 - decay) * weight, for every role."""
        weights = self.weights if self.are_float32 else [weight.float() for weight in self.weights]
        for role, kept in self.tensors.items():
            if kept and role != BEST:
                torch._foreach_lerp_(kept, weights, 1 - decays[role])

    @torch.no_grad()
    def keep_best(self) -> None:
        """Copy `ema` to `best`, if that role is kept."""
        for best, average in zip(self.tensors.get(BEST, []), self.tensors[HALF_LIFE], strict=False):
            best.copy_(average)

    @torch.no_grad()
    def swap_with_weights(self) -> None:
        """Exchange the values of the weights (float32 only) and `ema`; a second call restores both bit for bit."""
        for weight, average in zip(self.weights, self.tensors[HALF_LIFE], strict=True):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)


def initial_average(weight: Tensor, role: str) -> Tensor:
    """The initial value of an average: a float32 copy, of `best` in host memory."""
    device = torch.device("cpu") if role == BEST else weight.device
    return weight.detach().to(device, torch.float32, copy=True)


class Profile(NamedTuple):
    """One average: the exponent of its density, and the images seen when it was stored."""

    gamma: float
    images_seen: float


def profile(sigma_rel: float, images_seen: float) -> Profile:
    return Profile(gamma_of(sigma_rel), images_seen)


def coefficients(stored: Sequence[Profile], wanted: Profile) -> Float64[np.ndarray, " stored"]:
    """Share of each stored average in the wanted one; they sum to 1, so that constant weights stay as they are."""
    overlaps, wishes = _normal_equations(stored, wanted)
    ones = np.ones((len(stored), 1))
    # the last unknown is the Lagrange multiplier
    bordered = np.block([[overlaps, ones], [ones.T, np.zeros((1, 1))]])
    return np.linalg.lstsq(bordered, np.append(wishes, 1.0), rcond=1e-12)[0][:-1]


def misfit(stored: Sequence[Profile], wanted: Profile, shares: Float64[np.ndarray, " stored"]) -> float:
    """Norm of the difference between the wanted density and its fit, relative to the norm of the wanted one."""
    overlaps, wishes = _normal_equations(stored, wanted)
    unit = Profile(wanted.gamma, 1.0)
    whole = overlap(unit, unit)
    rest = whole - 2 * shares @ wishes + shares @ overlaps @ shares
    return math.sqrt(max(rest, 0.0) / whole)


def _normal_equations(
    stored: Sequence[Profile], wanted: Profile
) -> tuple[Float64[np.ndarray, "stored stored"], Float64[np.ndarray, " stored"]]:
    """Overlaps of the stored densities with each other and with the wanted one; time in units of its end, for scale."""
    rows = [Profile(one.gamma, one.images_seen / wanted.images_seen) for one in stored]
    overlaps = np.array([[overlap(left, right) for right in rows] for left in rows])
    return overlaps, np.array([overlap(one, Profile(wanted.gamma, 1.0)) for one in rows])


def overlap(left: Profile, right: Profile) -> float:
    """The integral of the product of two densities, each of which ends at its own time."""
    a, b = left.gamma, right.gamma
    end = min(left.images_seen, right.images_seen)
    both = (end / left.images_seen) ** a * (end / right.images_seen) ** b
    return (a + 1) * (b + 1) / (a + b + 1) * both * end / (left.images_seen * right.images_seen)
