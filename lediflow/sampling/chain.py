"""The chain of generation, from noise to what the codec decodes: w -> z -> prior -> x -> ODE -> y.

w ~ N(0, I); the latent sampler maps w to z (4 midpoint steps in the paper); the auxiliary decoder maps z to the prior
N(mu, sigma^2), or N(mu, (k sigma)^2 + s^2) if the flow was trained with a widened prior; x is a draw from it; a few
solver steps along the velocity field map x to y. A flow map, in place of the flow or of the latent sampler, is run by
jumps instead of a solver (flow/solvers/jumps.py). The baseline (no auxiliary model) starts from N(0, I).
A class is an input of the flow and of the latent sampler, of each if it was trained with classes. With guidance g their
velocity is v_0 + g (v_class - v_0), where v_0 has no class; this takes two evaluations of the model unless g is 0 or 1.
Nothing here waits for the device: solutions carry the checks that their numbers are finite, to be read afterwards.
Source: arXiv:2505.20723, section 3; the temperature is from the authors' sampler; guidance: arXiv:2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.flow.gaussians import sample, temper, widen
from lediflow.flow.solvers import Finiteness, Solution
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.models.specs import latent_shape
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.sampling.guidance import GuidedVelocity
from lediflow.sampling.known_times import at_known_times
from lediflow.sampling.methods import check_method, classes_of, is_flow_map, run_method
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.runtime import Inputs, Networks

Latents = Float[Tensor, "batch latent_channels h w"]
Labels = Int64[Tensor, " batch"]


class Start(NamedTuple):
    """Start of the integration; `z` and `prior` are None for the Gaussian baseline."""

    x: Float[Tensor, "batch channels height width"]
    z: Latents | None
    prior: Prior | None  # distribution of x before the temperature, widened as in training
    labels: Labels | None = None  # the class of each image for the flow; None: no class


class Course(NamedTuple):
    """One pass through the chain."""

    start: Start
    solution: Solution
    checks: list[Finiteness]  # of both solvers, not yet read from the device


@dataclass(frozen=True)
class Chain:
    """The models of generation, of which some may be missing; methods need those that they name."""

    velocity: VelocityModel | None
    auxiliary: AuxiliaryModel | None  # None: the Gaussian baseline
    latent_sampler: LatentSampler | None
    # how the models are run; asked for at each use, since a network that fails to compile is replaced
    networks: Callable[[], Networks]
    image_size: int
    width: Width  # of the prior that the velocity starts from

    def run(self, inputs: Inputs, config: SamplingConfig) -> Course:
        """The whole chain, from the numbers of the images."""
        mapped = self.latents(inputs, config) if self.auxiliary is not None else None
        start = self.start_from(inputs, None if mapped is None else mapped.x, config)
        solution = self.integrate(start, config)
        checks = [
            one.finiteness for one in (mapped, solution) if one is not None and one.finiteness is not None
        ]
        return Course(start, solution, checks)

    def latents(self, inputs: Inputs, config: SamplingConfig) -> Solution:
        """Draw w and map it to z with the latent sampler."""
        assert self.auxiliary is not None
        shape = latent_shape(self.auxiliary.spec, self.image_size, self.image_size)
        w = inputs.noise.normal(inputs.ids, "latent noise", shape)
        return self.latents_from(w, inputs.labels, config)

    def latents_from(self, w: Latents, labels: Labels | None, config: SamplingConfig) -> Solution:
        """Map given noise to z with the latent sampler."""
        network, no_class = self.networks().latent_velocity, classes_of(self.latent_sampler)
        assert network is not None
        is_map = is_flow_map(self.latent_sampler)
        solver, steps = config.latent_method(is_map)
        check_method("latent_", solver, is_map)
        if labels is None or not no_class:
            return run_method(at_known_times(network, network, solver, steps), w, solver, steps)

        def velocity(w: Tensor, t: Tensor, z: None, labels: Tensor, s: Tensor | None = None) -> Tensor:
            return network(w, t, s, labels)

        guided = GuidedVelocity(velocity, None, labels, config.latent_guidance, no_class)
        return run_method(guided, w, solver, steps)

    def prior(self, z: Latents) -> Prior:
        """The distribution that the flow starts from, N(mu(z), (k sigma(z))^2 + s^2)."""
        decode = self.networks().prior
        assert decode is not None
        mean, logvar = decode(z)
        return Prior(mean, widen(logvar, self.width.added, self.width.scale))

    def start_from(self, inputs: Inputs, z: Latents | None, config: SamplingConfig) -> Start:
        """A draw of the prior of z for each number; of N(0, I) without z."""
        assert self.velocity is not None
        shape = (self.velocity.spec.image_channels, self.image_size, self.image_size)
        gaussian = inputs.noise.normal(inputs.ids, "prior", shape)
        labels = inputs.labels if classes_of(self.velocity) else None
        if self.auxiliary is None or z is None:
            return Start(config.temperature * gaussian, None, None, labels)
        prior = self.prior(z)
        x = sample(prior.mean, temper(prior.logvar, config.temperature), gaussian)
        return Start(x, z, prior, labels)

    def velocity_from(self, start: Start, config: SamplingConfig) -> GuidedVelocity:
        """The velocity function of these starts, for a solver."""
        network, no_class = self.networks().velocity, classes_of(self.velocity)
        assert network is not None
        return GuidedVelocity(network, start.z, start.labels, config.guidance, no_class)

    def integrate(self, start: Start, config: SamplingConfig) -> Solution:
        """Integrate x to y along the velocity field; `nfe` counts model evaluations per image."""
        if config.steps == 0:
            return Solution(start.x, 0)
        is_map = is_flow_map(self.velocity)
        solver, steps = config.method(is_map)
        check_method("", solver, is_map)
        velocity = self.velocity_from(start, config)
        prepared: Callable[..., Tensor] = velocity
        if start.labels is None:
            prepared = at_known_times(velocity, self.networks().velocity, solver, steps, start.z)
        solution = run_method(prepared, start.x, solver, steps)
        return solution._replace(nfe=solution.nfe * velocity.evaluations)
