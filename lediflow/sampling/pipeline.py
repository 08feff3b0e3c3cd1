"""Generation: w -> z -> prior -> x -> ODE -> y [-> codec -> image].

w ~ N(0, I); the latent sampler maps w to z (4 midpoint steps in the paper); the auxiliary decoder maps z to the prior
N(mu, sigma^2), or N(mu, (k sigma)^2 + s^2) if the flow was trained with a widened prior; x is a draw from it; a few
solver steps along the velocity field map x to y. The baseline (no auxiliary model) starts from N(0, I).
Image i is a function of (weights, seed, i) and the solver's settings.
A class affects only the velocity; z is drawn without it. With guidance g the velocity is v_0 + g (v_class - v_0), where
v_0 has no class; this takes two evaluations of the model unless g is 0 or 1.
Source: arXiv:2505.20723, section 3; the temperature is from the authors' sampler; guidance: arXiv:2207.12598.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.errors import UserError
from lediflow.flow.gaussians import sample, temper, widen
from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import MOST_STEPS, Solution, check_solver, solve
from lediflow.flow.widening import Width
from lediflow.models import load_as, save_model
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.models.specs import latent_shape
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.ranges import bounded, check_ranges, seed_field
from lediflow.records import read_record
from lediflow.sampling.guidance import GuidedVelocity, labels_of

PIPELINE = "pipeline.json"


@dataclass(kw_only=True)
class SamplingConfig:
    """Settings that an image depends on."""

    seed: int = seed_field()  # image i depends only on (weights, seed, i) and these settings
    solver: str = "midpoint"  # euler | midpoint | heun2 | heun3 | rk4 | dopri5 (adaptive, ignores steps)
    # solver steps of the flow; 0 (with any solver): the draws of the prior
    steps: int = bounded(2, at_least=0, at_most=MOST_STEPS)
    # factor on the prior's standard deviation; lower: smoother images
    temperature: float = bounded(1.0, at_least=0)
    latent_solver: str = "midpoint"  # solver of the latent sampler
    # solver steps of the latent sampler; 4 in the paper
    latent_steps: int = bounded(4, at_least=1, at_most=MOST_STEPS)
    # image i has class labels[i % len(labels)]; []: no class
    labels: list[int] = bounded(default_factory=list, at_least=0)
    # scale of classifier-free guidance; 1: none; higher: images more typical of the class, less varied
    guidance: float = bounded(1.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.steps != 0:
            check_solver(self.solver, self.steps)
        try:
            check_solver(self.latent_solver, self.latent_steps)
        except ValueError as error:
            raise ValueError(f"latent_solver, latent_steps: {error}") from error
        if self.guidance != 1 and not self.labels:
            raise ValueError(
                f"guidance={self.guidance} without labels: it scales the effect of a class; give labels=[...], or "
                f"leave guidance at 1"
            )


@dataclass(kw_only=True)
class SamplingOptions(SamplingConfig):
    """SamplingConfig, with batch size, device and codec."""

    batch_size: int = bounded(64, at_least=1)  # images per batch; affects speed and memory, not the images
    device: str = "auto"  # auto: the GPU if there is one
    codec_path: str | None = None  # weights of the codec that encoded the data; not needed for pixels


class Start(NamedTuple):
    """Start of the integration; `z` and `prior` are None for the Gaussian baseline."""

    x: Float[Tensor, "batch channels height width"]
    z: Float[Tensor, "batch latent_channels h w"] | None
    prior: Prior | None  # distribution of x before the temperature, widened as in training
    labels: Int64[Tensor, " batch"] | None = None  # the class of each image; None: no class


class Generated(NamedTuple):
    """`images` in [-1, 1], decoded by the codec; `nfe` is the number of velocity model evaluations per image."""

    images: Float[Tensor, "batch channels height width"]
    start: Start
    nfe: int


class LeDiFlowPipeline:
    """Three models and the decoder of a codec; call it with image numbers."""

    def __init__(
        self,
        velocity: VelocityModel,
        auxiliary: AuxiliaryModel | None,
        latent_sampler: LatentSampler | None,
        *,
        image_size: int,
        decode: Callable[[Tensor], Tensor] | None = None,
        prior_widening: float = 0.0,
        prior_scale: float = 1.0,
    ) -> None:
        """The flow starts from N(mu, (prior_scale sigma)^2 + prior_widening^2), as in its training."""
        if (auxiliary is None) != (latent_sampler is None):
            raise ValueError(
                "a learned prior needs both the auxiliary model and the latent sampler, the Gaussian baseline neither"
            )
        self.velocity, self.auxiliary, self.latent_sampler = velocity, auxiliary, latent_sampler
        self.width = Width(prior_scale, prior_widening)
        if self.width != Width() and auxiliary is None:
            raise ValueError(
                f"prior_widening {prior_widening}, prior_scale {prior_scale}: the Gaussian baseline has no prior to "
                "widen"
            )
        self.image_size = image_size
        self.decode = decode or (lambda latents: latents)
        for module in self.modules().values():
            module.eval().requires_grad_(False)

    @property
    def prior_widening(self) -> float:
        return self.width.added

    @property
    def prior_scale(self) -> float:
        return self.width.scale

    def modules(self) -> dict[str, VelocityModel | AuxiliaryModel | LatentSampler]:
        """The models by name, without those that are None."""
        named = {
            "velocity": self.velocity,
            "auxiliary": self.auxiliary,
            "latent_sampler": self.latent_sampler,
        }
        return {name: module for name, module in named.items() if module is not None}

    @property
    def device(self) -> torch.device:
        return next(self.velocity.parameters()).device

    def to(self, device: torch.device | str) -> LeDiFlowPipeline:
        for module in self.modules().values():
            module.to(device)
        return self

    @torch.no_grad()
    def __call__(self, indices: int | Sequence[int], config: SamplingConfig | None = None) -> Generated:
        """Generate the images of the given numbers; an int n means 0 ... n - 1. ValueError for n below 0."""
        config = config or SamplingConfig()
        if isinstance(indices, int) and indices < 0:
            raise ValueError(
                f"{indices} images are requested; give a number of images, 0 or more, or their numbers"
            )
        self.check_labels(config)
        numbers = range(indices) if isinstance(indices, int) else indices
        ids = torch.as_tensor(list(numbers), dtype=torch.int64, device=self.device)
        start = self.start(ids, config)
        solution = self.integrate(start, config)
        return Generated(self.decode(solution.x).clamp(-1, 1), start, solution.nfe)

    @torch.no_grad()
    def start(self, ids: Int64[Tensor, " batch"], config: SamplingConfig) -> Start:
        """A draw of the prior for each number."""
        return self.start_from(ids, self.latents(ids, config) if self.auxiliary else None, config)

    @torch.no_grad()
    def start_from(
        self,
        ids: Int64[Tensor, " batch"],
        z: Float[Tensor, "batch latent_channels h w"] | None,
        config: SamplingConfig,
    ) -> Start:
        """A draw of the prior for each number, from given latents (None for the Gaussian baseline)."""
        noise = SampleNoise(config.seed)
        shape = (self.velocity.spec.image_channels, self.image_size, self.image_size)
        gaussian = noise.normal(ids, "prior", shape)
        labels = labels_of(ids, config.labels)
        if self.auxiliary is None or z is None:
            return Start(config.temperature * gaussian, None, None, labels)
        prior = self.prior(z)
        return Start(sample(prior.mean, temper(prior.logvar, config.temperature), gaussian), z, prior, labels)

    @torch.no_grad()
    def prior(self, z: Float[Tensor, "batch latent_channels h w"]) -> Prior:
        """The distribution that the flow starts from, N(mu(z), (k sigma(z))^2 + s^2)."""
        assert self.auxiliary is not None
        decoded = self.auxiliary.decode(z)
        return decoded._replace(logvar=widen(decoded.logvar, self.width.added, self.width.scale))

    @torch.no_grad()
    def latents(
        self, ids: Int64[Tensor, " batch"], config: SamplingConfig
    ) -> Float[Tensor, "batch channels h w"]:
        """Draw w and map it to z with the latent sampler."""
        assert self.auxiliary is not None and self.latent_sampler is not None
        shape = latent_shape(self.auxiliary.spec, self.image_size, self.image_size)
        w = SampleNoise(config.seed).normal(ids, "latent noise", shape)
        return solve(self.latent_sampler, w, solver=config.latent_solver, steps=config.latent_steps).x

    @torch.no_grad()
    def integrate(self, start: Start, config: SamplingConfig) -> Solution:
        """Integrate x to y along the velocity field; `nfe` counts model evaluations per image."""
        if config.steps == 0:
            return Solution(start.x, 0)
        velocity = self.velocity_from(start, config)
        solution = solve(velocity, start.x, solver=config.solver, steps=config.steps)
        return solution._replace(nfe=solution.nfe * velocity.evaluations)

    def velocity_from(self, start: Start, config: SamplingConfig) -> GuidedVelocity:
        """The velocity function of these starts, for a solver."""
        return GuidedVelocity(self.velocity, start.z, start.labels, config.guidance)

    def check_labels(self, config: SamplingConfig) -> None:
        """UserError for classes that the flow was not trained on."""
        if not config.labels:
            return
        num_classes = self.velocity.spec.num_classes
        if not num_classes:
            raise UserError(
                f"labels={config.labels}: this flow was trained without classes; leave labels out, or train one with "
                f"model.velocity.num_classes"
            )
        if unknown := [label for label in config.labels if not 0 <= label < num_classes]:
            raise UserError(
                f"labels={unknown}: the flow's classes are 0 to {num_classes - 1}; choose among them"
            )

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder with all models, for `from_pretrained`."""
        path = Path(path)
        for name, module in self.modules().items():
            save_model(module, path / name)
        (path / PIPELINE).write_text(
            json.dumps(
                {
                    "image_size": self.image_size,
                    "models": list(self.modules()),
                    "prior_widening": self.width.added,
                    "prior_scale": self.width.scale,
                }
            )
            + "\n"
        )

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, decode: Callable[[Tensor], Tensor] | None = None
    ) -> LeDiFlowPipeline:
        """Load what `save_pretrained` wrote; `decode` is the codec's decoder if the models were trained on latents."""
        path = Path(path)
        about = read_record(
            path / PIPELINE, "save the pipeline again", {"image_size": int, "models": list[str]}
        )
        is_learned = "auxiliary" in about["models"]
        return cls(
            load_as(VelocityModel, path / "velocity"),
            load_as(AuxiliaryModel, path / "auxiliary") if is_learned else None,
            load_as(LatentSampler, path / "latent_sampler") if is_learned else None,
            image_size=about["image_size"],
            decode=decode,
            prior_widening=about.get("prior_widening", 0.0),  # absent in folders older than the options
            prior_scale=about.get("prior_scale", 1.0),
        )
