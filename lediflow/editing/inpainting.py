"""Inpainting, eq. 7 of arXiv:2505.20723: new pixels inside a mask M, the known image y outside.

    v' = M v(psi_t, z) + (1 - M) (y - x)

The flow starts from x, a draw of the prior, and the known pixels' straight line to y starts from the same x. So the
known pixels are at (1 - t) x + t y at every time at which the solver calls the velocity, which is where the velocity
was trained to see them, and at y in the end: Runge-Kutta methods integrate a constant slope exactly, up to rounding.
The bytes of kept pixels (M = 0) are taken from the file, so that saved pictures equal it there.

With a codec, x and y are latents, and M is that of the latents (codec_space). Then the result is decoded as a whole,
and mixed with the photograph by the mask of the pixels. Unless z or the strength let the hidden part be seen, y is
encoded from the photograph with that part filled from its surroundings: encoders look beyond the pixels of a latent.

With a strength below 1, x and, with z_from=sampler, z are mixed with the photograph's own (strength.py). Strength 0
gives the photograph again, up to the round trips and to what the straight line outside changes inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lediflow.codecs import bytes_to_signal, signal_to_bytes
from lediflow.editing.codec_space import Amount, Images, codec_of, data_of, filled, pooled, surroundings
from lediflow.editing.inversion import Latents, encoded
from lediflow.editing.seam import seams
from lediflow.editing.strength import Own, mixed_latents, mixed_start, own_of
from lediflow.errors import UserError
from lediflow.flow.path import path_velocity, point_on_path
from lediflow.flow.solvers import Velocity, solve
from lediflow.flow.solvers.times_of_samples import without_zeros
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.chain import Start
from lediflow.sampling.options import SamplingConfig

# rounds that find z of the known part; on pictures of solar cells, three left patches darker than their surroundings
FILLINGS = 8


@dataclass(frozen=True)
class InpaintingVelocity:
    """v' of eq. 7, as a velocity for a solver that starts at `x`; it measures the state at every call."""

    velocity: Velocity
    x: Images  # where the flow starts, and with it the known pixels' line
    known: Images  # y
    amount: Amount
    # of each call: how far a kept pixel is from its line
    deviations: list[Tensor] = field(default_factory=list)

    def __call__(self, state: Images, t: Float[Tensor, ""] | Float[Tensor, " batch"]) -> Images:
        if not self.is_question(state, t):
            self.measure(state, t)
        return torch.lerp(path_velocity(self.x, self.known), self.velocity(state, t), self.amount)

    def is_question(self, state: Images, t: Float[Tensor, ""] | Float[Tensor, " batch"]) -> bool:
        """Whether dopri5, before its first step, asks whether samples may have times of their own: off the path."""
        return t.ndim == 1 and torch.equal(state, without_zeros(self.x))

    def measure(self, state: Images, t: Float[Tensor, ""] | Float[Tensor, " batch"]) -> None:
        """Note the largest distance of a kept pixel from (1 - t) x + t y."""
        line = point_on_path(self.x, self.known, t.expand(len(state)))
        self.deviations.append(((state - line).abs() * (self.amount == 0)).amax())


class Task(NamedTuple):
    """A photograph to be inpainted, prepared once for all its results."""

    image: UInt8[Tensor, "channels height width"]
    amount: Amount  # M of its pixels
    y: Float[Tensor, "1 channels height width"]  # as the models know it
    y_amount: Amount  # M of y
    own: Own  # z, as `z_from` says, and the photograph's own noise that the strength needs
    z_from: str
    strength: float
    is_pasted: bool  # bytes outside of the mask are those of the photograph


class Inpainted(NamedTuple):
    """Pictures as bytes; `line_error` is the largest distance of a kept value from its line at any call or the end."""

    pixels: UInt8[Tensor, "batch channels height width"]
    nfe: int
    line_error: float


@torch.no_grad()
def prepared(
    pipeline: LeDiFlowPipeline,
    image: UInt8[Tensor, "channels height width"],
    amount: Amount,
    config: SamplingConfig,
    z_from: str,
    *,
    strength: float = 1.0,
    is_pasted: bool = True,
) -> Task:
    """What all results of an image share; options as in InpaintConfig. UserError for one that would be ignored."""
    is_exact = codec_of(pipeline).is_exact
    if is_exact and not is_pasted:
        raise UserError(
            "paste=false: these are models of pixels, and eq. 7 itself keeps those outside of the mask; leave it out"
        )
    amount = amount.to(pipeline.device)
    photograph = bytes_to_signal(image.to(pipeline.device))[None]
    y_amount = pooled(pipeline, amount)
    y = data_of(pipeline, photograph)
    known = y
    if not is_exact and z_from != "image" and strength == 1:
        known = data_of(pipeline, filled(photograph, surroundings(photograph, amount), amount))
    z = latents_of_known(pipeline, known, y_amount) if z_from == "masked" else None
    parts = "" if strength == 1 else "xw" if z_from == "sampler" else "x"
    own = own_of(pipeline, y, config, parts, z)
    return Task(image, amount, known, y_amount, own, z_from, strength, is_pasted)


@torch.no_grad()
def inpaint(
    pipeline: LeDiFlowPipeline, task: Task, numbers: Sequence[int], config: SamplingConfig
) -> Inpainted:
    """Repaint the image once for each number; draws depend on seed and number alone."""
    ids = torch.tensor(numbers, dtype=torch.int64, device=pipeline.device)
    z = latents_for(pipeline, task, ids, config)
    start = mixed_start(pipeline.start_from(ids, z, config), task.own, task.strength)
    y = task.y.expand(len(ids), -1, -1, -1)
    if codec_of(pipeline).is_exact:
        return integrated(pipeline, start, y, task.amount, config, task.image)
    end, nfe, line_error = followed(pipeline, start, y, task.y_amount, config)
    made = pipeline.decode(end)
    if not task.is_pasted:
        return Inpainted(signal_to_bytes(made), nfe, line_error)
    mixed = torch.lerp(bytes_to_signal(task.image.to(made.device)).expand_as(made), made, task.amount)
    return Inpainted(pasted(signal_to_bytes(mixed), task.image, task.amount), nfe, line_error)


def measures(task: Task, pixels: UInt8[Tensor, "batch channels height width"]) -> dict[str, Any]:
    """For edit.json: how visible the border is in results and in the photograph, and errors of round trips."""
    found, (own,) = seams(pixels, task.amount), seams(task.image[None], task.amount)
    trips = {"round_trip": task.own.round_trips()} if task.own.inverted else {}
    return {"seam": {"results": found, "photograph": own}, **trips}


def latents_for(pipeline: LeDiFlowPipeline, task: Task, ids: Tensor, config: SamplingConfig) -> Latents:
    """z of the image or of its known part, or the sampler's draws, mixed with the image's own."""
    if task.z_from == "sampler":
        return mixed_latents(pipeline, task.own, ids, config, task.strength)
    return task.own.z.repeat(len(ids), 1, 1, 1)


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


def integrated(
    pipeline: LeDiFlowPipeline,
    start: Start,
    known: Images,
    amount: Amount,
    config: SamplingConfig,
    image: UInt8[Tensor, "channels height width"],
) -> Inpainted:
    """Follow eq. 7 in pixels, and put the bytes of the kept pixels in their place."""
    end, nfe, line_error = followed(pipeline, start, known, amount, config)
    return Inpainted(pasted(signal_to_bytes(end), image, amount), nfe, line_error)


def followed(
    pipeline: LeDiFlowPipeline, start: Start, known: Images, amount: Amount, config: SamplingConfig
) -> tuple[Images, int, float]:
    """Integrate eq. 7 from the start: the end, the evaluations of the flow, and the line error."""
    velocity = pipeline.velocity_from(start, config)
    eq7 = InpaintingVelocity(velocity, start.x, known, amount)
    solver, steps = config.method(is_flow_map=False)
    with pipeline.runtime.ready():
        solution = solve(eq7, start.x, solver=solver, steps=steps)
    eq7.measure(solution.x, torch.ones((), device=solution.x.device))
    return solution.x, solution.nfe * velocity.evaluations, float(torch.stack(eq7.deviations).amax())


def pasted(
    made: UInt8[Tensor, "batch channels height width"],
    image: UInt8[Tensor, "channels height width"],
    amount: Amount,
) -> UInt8[Tensor, "batch channels height width"]:
    """The pictures with the photograph's own bytes where M = 0."""
    return torch.where(amount == 0, image.to(made.device)[None], made)
