"""Straight path between a prior draw and an image, and the distributions of the times t in [0, 1] of training.

Convention, everywhere: t = 0 is the prior (x_0), t = 1 is data (x_1).
Source: arXiv:2505.20723, section 2.1, eq. 2; where x_0 is called x and x_1 is called y.

A sample's time is a function of (seed, sample id), so it does not depend on its batch or rank.

- uniform: t ~ U[0, 1], eq. 2.
- logit_normal: t = sigmoid(mean + sd n), n ~ N(0, 1); favours the middle (Esser et al., arXiv:2403.03206).
- stratified: [0, 1] is divided into `strata` equal parts. Any `strata` consecutive ids have one t in each part, and
  fewer ids are spread evenly; inside its part t is uniform and independent. Over seeds, a sample's t is uniform.
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


def point_on_path(
    x_0: Float[Tensor, " batch *dims"], x_1: Float[Tensor, " batch *dims"], t: Float[Tensor, " batch"]
) -> Float[Tensor, " batch *dims"]:
    """psi_t = (1 - t) x_0 + t x_1: the point at time t on the segment from x_0 to x_1."""
    return torch.lerp(x_0, x_1, align(t, x_1))


def path_velocity(
    x_0: Float[Tensor, " batch *dims"], x_1: Float[Tensor, " batch *dims"]
) -> Float[Tensor, " batch *dims"]:
    """x_1 - x_0: the velocity along the segment, constant in time."""
    return x_1 - x_0


def align(t: Float[Tensor, " batch"], like: Float[Tensor, " batch *dims"]) -> Float[Tensor, " batch *ones"]:
    """t with axes of length one appended, so that it broadcasts with `like` by sample."""
    return t.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))


@dataclass(kw_only=True)
class TimeConfig:
    """Distribution of the training times of a flow."""

    time: str = "uniform"  # uniform | logit_normal (favours the middle) | stratified (less noise in the loss)
    # logit_normal only: mean of logit(t); above 0: more times near the data (t = 1)
    time_mean: float = bounded(0.0)
    # logit_normal only: standard deviation of logit(t); smaller: more times near the centre
    time_sd: float = bounded(1.0, above=0)
    # stratified only: number of parts of [0, 1]; this many consecutive samples have one time in each part
    time_strata: int = bounded(64, at_least=1)

    def __post_init__(self) -> None:
        if self.time not in LAWS:
            raise ValueError(f"stage.time={self.time!r} is unknown; use one of {', '.join(LAWS)}")
        check_ranges(self, "stage.")


def draw_times(config: TimeConfig, noise: SampleNoise, ids: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """t of each sample, from the distribution that `config` names."""
    match config.time:
        case "logit_normal":
            return logit_normal(noise, ids, config.time_mean, config.time_sd)
        case "stratified":
            return stratified(noise, ids, config.time_strata)
        case _:
            return uniform(noise, ids)


def uniform(noise: SampleNoise, ids: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Uniform times in (0, 1)."""
    return noise.uniform(ids, STREAM)


def logit_normal(
    noise: SampleNoise, ids: Int[Tensor, " batch"], mean: float, sd: float
) -> Float[Tensor, " batch"]:
    """sigmoid(mean + sd n) for standard normal n."""
    return torch.sigmoid(mean + sd * noise.normal(ids, STREAM))


def stratified(noise: SampleNoise, ids: Int[Tensor, " batch"], strata: int) -> Float[Tensor, " batch"]:
    """Times that `strata` consecutive ids spread over as many equal parts of [0, 1]."""
    # one shift for all samples
    shift = (noise.uniform(torch.zeros_like(ids[:1]), "time shift") * strata).long()
    stratum = (ids % strata * stride(strata) + shift) % strata
    return (stratum + noise.uniform(ids, STREAM)) / strata


def stride(strata: int) -> int:
    """A step through the strata that is coprime to their number and near the golden ratio: visits each once, evenly."""
    return next(k for k in count(max(1, round(strata / GOLDEN_RATIO))) if math.gcd(k, strata) == 1)
