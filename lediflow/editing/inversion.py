"""From data back to noise by the reverse ODE: z -> w with the latent sampler, y -> x with the flow.

An image's z is the mean of the encoder's posterior. The error of the way there and back, |z' - z| / |z|, is the
solver's alone (both directions use one solver), and a lower bound of the error of editing. It is measured with the
method that is used and, beside it, with another: fixed steps beside dopri5, dopri5 beside fixed steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers import ignores_steps, round_trip_error, solve
from lediflow.models.specs import LATENT_STEPS
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import MIDPOINT, Method, SamplingConfig

log = logging.getLogger(__name__)
ADAPTIVE = Method("dopri5", 1)

Latents = Float[Tensor, "batch latent_channels h w"]


class Inverted(NamedTuple):
    """Noise that leads to given data, and the relative error of each sample's round trip, by method."""

    noise: Float[Tensor, " batch *dims"]
    errors: dict[str, list[float]]  # the first entry is the method that made `noise`

    def record(self, sample: int) -> dict[str, float]:
        """The errors of one sample, for edit.json."""
        return {method: errors[sample] for method, errors in self.errors.items()}

    def warnings(self, names: list[str], threshold: float) -> list[str]:
        """A sentence for each sample whose error with the method in use exceeds the threshold; logged, too."""
        method, errors = next(iter(self.errors.items()))
        advice = "Use dopri5, or more steps"
        if method == ADAPTIVE.solver:
            advice = "No solver follows this model back from there: train it longer"
        found = [
            f"{name}: mapped to noise and back by {method} it is off by {error:.2g} of its norm, above "
            f"round_trip_warning={threshold:g}; results keep less of it. {advice}"
            for name, error in zip(names, errors, strict=True)
            if not error <= threshold
        ]
        for sentence in found:
            log.warning("%s", sentence)
        return found


@torch.no_grad()
def encoded(pipeline: LeDiFlowPipeline, images: Float[Tensor, "batch channels height width"]) -> Latents:
    """z of images in [-1, 1]: the mean of the encoder's posterior."""
    assert pipeline.auxiliary is not None
    found: Latents = pipeline.auxiliary.encode(images.to(pipeline.device)).mean
    return found


@torch.no_grad()
def latents_to_noise(pipeline: LeDiFlowPipeline, z: Latents, method: Method) -> Inverted:
    """w of latents, by the latent sampler's ODE from t = 1 to 0."""
    with pipeline.runtime.ready():
        return inverted(latent_velocity(pipeline), z, method, Method(MIDPOINT, LATENT_STEPS))


@torch.no_grad()
def noise_of_latents(pipeline: LeDiFlowPipeline, z: Latents, method: Method) -> Latents:
    """w of latents without round trips, for many pictures."""
    with pipeline.runtime.ready():
        return solve(latent_velocity(pipeline), z, solver=method.solver, steps=method.steps, t0=1.0, t1=0.0).x


@torch.no_grad()
def noise_to_latents(pipeline: LeDiFlowPipeline, w: Latents, method: Method) -> Latents:
    """z of noise, by the latent sampler's ODE from t = 0 to 1."""
    with pipeline.runtime.ready():
        return solve(latent_velocity(pipeline), w, solver=method.solver, steps=method.steps).x


def latent_velocity(pipeline: LeDiFlowPipeline) -> Callable[..., Tensor]:
    """The velocity of the latent sampler, which a pipeline that edits has."""
    velocity = pipeline.runtime.networks.latent_velocity
    assert velocity is not None
    return velocity


@torch.no_grad()
def data_to_start(
    pipeline: LeDiFlowPipeline,
    images: Float[Tensor, "batch channels height width"],
    z: Latents,
    config: SamplingConfig,
) -> Inverted:
    """x of images, by the flow's reverse ODE with z; round trips by dopri5 and by the method of `config`."""
    y = images.to(pipeline.device)
    own = pipeline.start_from(torch.zeros(len(y), dtype=torch.int64, device=y.device), z, config)
    with pipeline.runtime.ready():
        return inverted(pipeline.velocity_from(own, config), y, ADAPTIVE, config.method(is_flow_map=False))


def inverted(
    velocity: Callable[..., Tensor], data: Float[Tensor, " batch *dims"], method: Method, fixed: Method
) -> Inverted:
    """Integrate from t = 1 to 0 by `method`, with round trips by it and by the other kind: `fixed`, or dopri5."""
    other = fixed if ignores_steps(method.solver) else ADAPTIVE
    trips = {
        method_name(chosen): round_trip_error(
            velocity, data, t0=1.0, t1=0.0, solver=chosen.solver, steps=chosen.steps
        )
        for chosen in (method, other)
    }
    errors = {name: trip.relative_error.tolist() for name, trip in trips.items()}
    return Inverted(trips[method_name(method)].there, errors)


def method_name(method: Method) -> str:
    """The solver with its number of steps, without it if the solver chooses its own."""
    return method.solver if ignores_steps(method.solver) else str(method)
