"""At which times t in [0, 1] a flow is trained.

Every law is a function of (seed, sample id), so that a sample's time does not depend on its batch or rank.

- uniform: t ~ U[0, 1], eq. 2 of arXiv:2505.20723.
- logit_normal: t = sigmoid(mean + sd n), n ~ N(0, 1); more of the middle (Esser et al., arXiv:2403.03206).
- stratified: [0, 1] is cut into `strata` equal parts. Any `strata` consecutive ids have one t in each part, and
  fewer are spread widely; inside its part t is uniform and independent. Over seeds, a sample's t is uniform.
"""

import math
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lediflow.flow.noise import SampleNoise
from lediflow.ranges import bounded, check_ranges

LAWS = ("uniform", "logit_normal", "stratified")
STREAM = "time"
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


@dataclass(kw_only=True)
class TimeConfig:
    """The law of the times that a flow is trained at."""

    time: str = "uniform"  # uniform | logit_normal (more of the middle) | stratified (less noise in the loss)
    time_mean: float = bounded(0.0)  # of logit(t), logit_normal only; above 0 favours the data's end
    time_sd: float = bounded(
        1.0, above=0
    )  # of logit(t), logit_normal only; smaller gathers times around the middle
    time_strata: int = bounded(
        64, at_least=1
    )  # parts of [0, 1], stratified only; as many consecutive samples have one time in each

    def __post_init__(self) -> None:
        if self.time not in LAWS:
            raise ValueError(f"stage.time={self.time!r} is unknown; use one of {', '.join(LAWS)}")
        check_ranges(self, "stage.")


def draw_times(config: TimeConfig, noise: SampleNoise, ids: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """t of each sample, by the law that `config` names."""
    match config.time:
        case "logit_normal":
            return logit_normal(noise, ids, config.time_mean, config.time_sd)
        case "stratified":
            return stratified(noise, ids, config.time_strata)
        case _:
            return uniform(noise, ids)


def uniform(noise: SampleNoise, ids: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    return noise.uniform(ids, STREAM)


def logit_normal(
    noise: SampleNoise, ids: Int[Tensor, " batch"], mean: float, sd: float
) -> Float[Tensor, " batch"]:
    return torch.sigmoid(mean + sd * noise.normal(ids, STREAM))


def stratified(noise: SampleNoise, ids: Int[Tensor, " batch"], strata: int) -> Float[Tensor, " batch"]:
    shift = (
        noise.uniform(torch.zeros_like(ids[:1]), "time shift") * strata
    ).long()  # the same for all samples
    stratum = (ids % strata * stride(strata) + shift) % strata
    return (stratum + noise.uniform(ids, STREAM)) / strata


def stride(strata: int) -> int:
    """A step through the strata that meets each once and spreads any few: coprime, near the golden section."""
    return next(k for k in count(max(1, round(strata / GOLDEN_RATIO))) if math.gcd(k, strata) == 1)
