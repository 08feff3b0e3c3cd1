"""Inpainting, eq. 7 of arXiv:2505.20723: new pixels inside a mask M, the known image y outside.

    v' = M v(psi_t, z) + (1 - M) (y - x)

The flow starts from x, a draw of the prior, and the known pixels' straight line to y starts from the same x. So the
known pixels are at (1 - t) x + t y at every time at which the solver calls the velocity, which is where the velocity
was trained to see them, and at y in the end: Runge-Kutta methods integrate a constant slope exactly, up to rounding.
The bytes of kept pixels (M = 0) are taken from the file, so that saved pictures equal it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lediflow.codecs import bytes_to_signal, signal_to_bytes
from lediflow.editing.inversion import encoded
from lediflow.flow.path import path_velocity
from lediflow.flow.solvers import Velocity, solve
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pipeline import Start

Images = Float[Tensor, "batch channels height width"]
Amount = Float[Tensor, "1 1 height width"]  # M: 1 repaints, 0 keeps
# rounds that find z of the known part; on pictures of solar cells, three left patches darker than their surroundings
FILLINGS = 8


@dataclass(frozen=True)
class InpaintingVelocity:
    """v' of eq. 7, as a velocity for a solver that starts at `x`."""

    velocity: Velocity
    x: Images  # where the flow starts, and with it the known pixels' line
    known: Images  # y
    amount: Amount

    def __call__(self, state: Images, t: Float[Tensor, ""] | Float[Tensor, " batch"]) -> Images:
        return torch.lerp(path_velocity(self.x, self.known), self.velocity(state, t), self.amount)


class Inpainted(NamedTuple):
    """Pictures as bytes; `line_error` is the largest distance of a kept pixel from its line after any step."""

    pixels: UInt8[Tensor, "batch channels height width"]
    nfe: int
    line_error: float


@torch.no_grad()
def inpaint(
    pipeline: LeDiFlowPipeline,
    image: UInt8[Tensor, "channels height width"],
    amount: Amount,
    numbers: list[int],
    config: SamplingConfig,
    z_from: str,
) -> Inpainted:
    """Repaint an image once for each number; `z_from` as in InpaintConfig. Draws depend on seed and number alone."""
    ids = torch.tensor(numbers, dtype=torch.int64, device=pipeline.device)
    known = bytes_to_signal(image.to(pipeline.device))[None].expand(len(ids), -1, -1, -1)
    amount = amount.to(pipeline.device)
    z = latents_for(pipeline, known[:1], amount, ids, config, z_from)
    start = pipeline.start_from(ids, z, config)
    return integrated(pipeline, start, known, amount, config, image)


def latents_for(
    pipeline: LeDiFlowPipeline,
    known: Float[Tensor, "1 channels height width"],
    amount: Amount,
    ids: Tensor,
    config: SamplingConfig,
    z_from: str,
) -> Float[Tensor, "batch latent_channels h w"]:
    """z of the image, of its known part, or of the sampler's draws."""
    if z_from == "sampler":
        return pipeline.latents(ids, config)
    z = encoded(pipeline, known) if z_from == "image" else latents_of_known(pipeline, known, amount)
    return z.repeat(len(ids), 1, 1, 1)


def latents_of_known(
    pipeline: LeDiFlowPipeline, known: Float[Tensor, "1 channels height width"], amount: Amount
) -> Float[Tensor, "1 latent_channels h w"]:
    """z of the known part alone: the hidden part is filled with the mean of the rest, then with what z predicts there.

    Encoding and filling with the prior's mean are repeated FILLINGS times; a flat patch would be unlike any photograph.
    """
    kept = 1 - amount
    fill = (known * kept).sum(dim=(2, 3), keepdim=True) / kept.sum()
    for _ in range(FILLINGS):
        z = encoded(pipeline, filled(known, fill.expand_as(known), amount))
        fill = pipeline.prior(z).mean
    return z


def filled(known: Images, fill: Images, amount: Amount) -> Images:
    """The image with its hidden part replaced; `where`, so that not even a rounding of hidden pixels is passed on."""
    return torch.where(amount == 1, fill, torch.lerp(known, fill, amount))


def integrated(
    pipeline: LeDiFlowPipeline,
    start: Start,
    known: Images,
    amount: Amount,
    config: SamplingConfig,
    image: UInt8[Tensor, "channels height width"],
) -> Inpainted:
    """Integrate eq. 7 from the start, and put the bytes of the kept pixels in their place."""
    velocity = pipeline.velocity_from(start, config)
    eq7 = InpaintingVelocity(velocity, start.x, known, amount)
    is_kept = (amount == 0).expand_as(known)
    deviations: list[Tensor] = []

    def measure(t: Tensor, state: Images) -> None:
        line = torch.lerp(start.x, known, rearrange(t, "... -> ... 1 1 1"))
        deviations.append((state - line)[is_kept].abs().amax())

    solver, steps = config.method(is_flow_map=False)
    with pipeline.runtime.ready():
        solution = solve(eq7, start.x, solver=solver, steps=steps, on_step=measure)
    made = signal_to_bytes(solution.x)
    pixels = torch.where(is_kept, image.to(made.device)[None], made)
    return Inpainted(pixels, solution.nfe * velocity.evaluations, float(torch.stack(deviations).amax()))
