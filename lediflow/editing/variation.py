"""Other versions of an image: the same z with other draws x of its prior, or the same x with other z.

keep=z  what the encoder sees of the image stays; x is drawn anew from p(. | z): details differ.
keep=x  x is where the flow starts: the image is mapped back to it by the flow's reverse ODE, with the image's own z.
        Then the flow runs from this x with latents that the latent sampler draws: what x alone decides stays.

With a strength below 1, what is drawn anew is mixed with the image's own (strength.py): the noise of x with keep=z, w
with keep=x. At strength 0 both return the image, up to the round trips.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.editing.strength import Own, mixed_latents, mixed_start
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.chain import Start
from lediflow.sampling.options import SamplingConfig

Images = Float[Tensor, "batch channels height width"]


class Varied(NamedTuple):
    """Images in [-1, 1], and the evaluations of the flow for each."""

    images: Images
    nfe: int


def parts_of(keep: str, strength: float) -> str:
    """What of the image's own noise is needed, for `own_of`."""
    if keep == "z":
        return "" if strength == 1 else "x"
    return "x" if strength == 1 else "xw"


@torch.no_grad()
def varied(
    pipeline: LeDiFlowPipeline, own: Own, ids: Tensor, config: SamplingConfig, *, keep: str, strength: float
) -> Varied:
    """An image for each number that keeps z or x of the image that `own` was found of."""
    if keep == "z":
        start = pipeline.start_from(ids, own.z.repeat(len(ids), 1, 1, 1), config)
        return finished(pipeline, mixed_start(start, own, strength), config)
    drawn = pipeline.start_from(ids, mixed_latents(pipeline, own, ids, config, strength), config)
    x = own.inverted["x"].noise.repeat(len(ids), 1, 1, 1)
    return finished(pipeline, drawn._replace(x=x), config)


def finished(pipeline: LeDiFlowPipeline, start: Start, config: SamplingConfig) -> Varied:
    solution = pipeline.integrate(start, config)
    return Varied(pipeline.decode(solution.x).clamp(-1, 1), solution.nfe)
