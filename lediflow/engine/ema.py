"""Running averages of the weights, in float32, over whatever part of them this rank owns.

Two kinds, both on the image clock. `ema` is an exponential average with a half-life that ramps up with the run's age,
so that the first, poor weights are forgotten: half-life = min(asked, ramp * images seen). `ema_<sigma_rel>` are the
power-function averages of EDM2 (Karras et al. 2024, arXiv:2312.02696, section 3): the weight of a moment tau in the
average at t is proportional to tau^gamma, and sigma_rel is the profile's width as a share of the run's length. Stored
along the run they allow any other width to be made afterwards (posthoc.py). `best` is `ema` as it was at one
moment, kept in host memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

HALF_LIFE, BEST = "ema", "best"
WIDEST = 0.28  # of sigma_rel: there gamma nears 0, a plain mean of all weights


@dataclass(kw_only=True)
class EMAConfig:
    half_life_images: int = bounded(50_000, at_least=0)  # longer: smoother weights that lag further behind
    ramp: float = bounded(0.1, at_least=0)  # cap on the half-life as a share of the images seen so far
    sigma_rels: list[float] = bounded(
        default_factory=lambda: [0.05, 0.10], above=0, below=WIDEST, is_distinct=True
    )  # widths of further averages, from which any other can be made later; [] keeps none and saves their memory

    def __post_init__(self) -> None:
        check_ranges(self, "train.ema.")
        for width in self.sigma_rels:
            if round(width, 3) != width:  # roles are told apart by three decimals
                raise ValueError(f"train.ema.sigma_rels: {width} has more than three decimals; round it")


def refuse_new_widths(config: EMAConfig, kept: Iterable[str]) -> None:
    """An average that began in the middle of a run is not the one that its width names; `kept` are keys of a state."""
    roles_kept = {key.partition("/")[0] for key in kept}
    if new := [width for width in config.sigma_rels if role_of(width) not in roles_kept]:
        raise UserError(
            f"train.ema.sigma_rels: {new} were not kept from the start of this run (kept: {sorted(roles_kept)}). Leave "
            "them out: other widths are made afterwards, by python -m lediflow.checkpoint export RUN --ema WIDTH"
        )


def role_of(sigma_rel: float) -> str:
    """Under which a power-function average is kept."""
    return f"{HALF_LIFE}_{sigma_rel:.3f}"


def roles(config: EMAConfig) -> tuple[str, ...]:
    """Every average of a run."""
    return (HALF_LIFE, *map(role_of, config.sigma_rels))


def decays_for(config: EMAConfig, images_seen: int, batch: int) -> dict[str, float]:
    """Weight of each old average after a batch of `batch` images that ends at `images_seen`, in [0, 1)."""
    half_life = min(config.half_life_images, config.ramp * images_seen)
    decays = {HALF_LIFE: 0.5 ** (batch / half_life) if half_life > 0 else 0.0}
    rest = 1 - batch / images_seen
    return decays | {role_of(width): rest ** (gamma_of(width) + 1) for width in config.sigma_rels}


def sigma_rel_of(gamma: float) -> float:
    """Standard deviation of the density (gamma + 1) tau^gamma on [0, 1]."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(sigma_rel: float) -> float:
    """The exponent of a profile of that width: a root of the cubic behind `sigma_rel_of`, by bisection."""
    low, high = 0.0, 1 / sigma_rel  # sigma_rel(gamma) falls, and is below 1 / gamma
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return (low + high) / 2


class Averages:
    """The averages of tensors that an optimizer updates in place; `tensors[role]` lie in the order of the weights."""

    def __init__(self, weights: Sequence[Tensor], roles: Sequence[str]) -> None:
        self.weights = [weight.detach() for weight in weights]
        self.tensors = {role: [initial_average(weight, role) for weight in self.weights] for role in roles}

    @torch.no_grad()
    def update(self, decays: Mapping[str, float]) -> None:
        """average <- decay * average + (1 - decay) * weight, for every role."""
        weights = [weight.float() for weight in self.weights]  # themselves, unless they are kept in bfloat16
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
