"""Generation of images from their numbers: three models, the decoder of a codec, and how they are run.

Image i is a function of (weights, seed, i) and the settings. What is computed is in lediflow/sampling/chain.py, how the
networks are run in lediflow/sampling/runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from numbers import Integral
from operator import index
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.codecs import Codec, PixelCodec
from lediflow.disk import write_json
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import Solution, ignores_steps
from lediflow.flow.widening import SCALE, WIDTH
from lediflow.models import load_as, save_model
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.records import read_record
from lediflow.sampling.belonging import (
    check_codec,
    check_has_codec,
    check_models,
    common_names,
    kept_record,
    names_of,
    width_of_start,
)
from lediflow.sampling.chain import Chain, Start
from lediflow.sampling.classes import WITHOUT_CLASSES, ClassNumber, class_numbers
from lediflow.sampling.guidance import GuidedVelocity, labels_of
from lediflow.sampling.methods import (
    check_guidance,
    check_method,
    checked,
    classes_of,
    common_classes,
    is_flow_map,
)
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.runtime import Inputs, Runtime, choose_runtime

PIPELINE = "pipeline.json"
LOAD_ANOTHER = "give a folder that save_pretrained wrote, or save the pipeline again"
log = logging.getLogger(__name__)
Config = TypeVar("Config", bound=SamplingConfig)


class Generated(NamedTuple):
    """`images` in [-1, 1], decoded by the codec; `nfe` is the number of velocity model evaluations per image."""

    images: Float[Tensor, "batch channels height width"]
    start: Start
    nfe: int


class Asked(NamedTuple):
    """The arguments of `LeDiFlowPipeline.use`, to be repeated on another device."""

    runtime: str
    precision: str
    images: int


class LeDiFlowPipeline:
    """Three models and the decoder of a codec; call it with image numbers.

    `use` says how the models are run: eagerly in float32 at first.
    """

    def __init__(
        self,
        velocity: VelocityModel,
        auxiliary: AuxiliaryModel | None,
        latent_sampler: LatentSampler | None,
        *,
        image_size: int,
        decode: Callable[[Tensor], Tensor] | None = None,
        codec: Codec | None = None,
        prior_widening: float | None = None,
        prior_scale: float | None = None,
    ) -> None:
        """The flow starts from N(mu, (prior_scale sigma)^2 + prior_widening^2), as in its training.

        Models from `load_model` bring their records with them: the width and the names of the classes are taken from
        there, and models that do not belong together are refused. Without a record the width is 0 and 1 unless it is
        given, with a warning. ValueError for another width than the recorded one, and where a part is missing.
        Models of latents need `decode`, or the whole codec, with which photographs can be edited, too.
        """
        check_models(velocity, auxiliary, latent_sampler, image_size)
        check_has_codec(velocity, codec is not None or decode is not None)
        self.velocity, self.auxiliary, self.latent_sampler = velocity, auxiliary, latent_sampler
        self.width = width_of_start(velocity, auxiliary, prior_widening, prior_scale)
        self.num_classes = common_classes(velocity, latent_sampler)
        self.image_size = image_size
        self.codec = codec or (PixelCodec() if decode is None else None)
        self.decode = decode or (codec or PixelCodec()).decode
        self.chain = Chain(
            velocity, auxiliary, latent_sampler, lambda: self.runtime.networks, image_size, self.width
        )
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        self.use("eager", "float32")

    def use(self, runtime: str = "auto", precision: str = "float32", *, images: int = 1) -> LeDiFlowPipeline:
        """Run the models by this runtime, in this precision (`SamplingOptions`); returns the pipeline.

        `images` is how many images will be made, from which `auto` judges what pays. A runtime that was asked for by
        name raises UserError when a model cannot be compiled; `auto` warns once and continues eagerly.
        """
        self.asked = Asked(runtime, precision, images)
        self.runtime = Runtime(
            choose_runtime(runtime, self.device, images, precision),
            dict(self.modules()),
            precision,
            self.device,
            is_required=runtime != "auto",
        )
        return self

    @property
    def prior_widening(self) -> float:
        return self.width.added

    @property
    def prior_scale(self) -> float:
        return self.width.scale

    @property
    def class_names(self) -> list[str]:
        """The names of the classes by number; empty if they are not known. UserError where the models disagree."""
        return common_names(
            *(names_of(model) if classes_of(model) else [] for model in (self.velocity, self.latent_sampler))
        )

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
        return self.use(self.asked.runtime, self.asked.precision, images=self.asked.images)

    @torch.no_grad()
    def __call__(
        self, indices: int | Sequence[int] | Tensor, config: SamplingConfig | None = None
    ) -> Generated:
        """Generate the images of the given numbers; an int n means 0 ... n - 1.

        ValueError for n below 0, and for numbers that are not whole.
        """
        config = config or SamplingConfig()
        ids = torch.tensor(image_numbers(indices), dtype=torch.int64, device=self.device)
        inputs = self._inputs(ids, config)
        course = self.runtime.run(recorded_kind(config), lambda given: self.chain.run(given, config), inputs)
        for finiteness in course.checks:
            finiteness.check()
        solution = course.solution
        return Generated(self.decode(solution.x).clamp(-1, 1), course.start, solution.nfe)

    def _inputs(self, ids: Int64[Tensor, " batch"], config: SamplingConfig) -> Inputs:
        """What decides the images of these numbers; UserError for unknown classes."""
        return Inputs(ids, labels_of(ids, self.class_numbers(config)), SampleNoise(config.seed))

    def is_recorded(self, config: SamplingConfig) -> bool:
        """Whether a call with these settings is one CUDA graph, from its third time on."""
        return self.runtime.recordings is not None and recorded_kind(config) is not None

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
        inputs = self._inputs(ids, config)
        with self.runtime.ready():
            return self.chain.start_from(inputs, z, config)

    @torch.no_grad()
    def prior(self, z: Float[Tensor, "batch latent_channels h w"]) -> Prior:
        """The distribution that the flow starts from, N(mu(z), (k sigma(z))^2 + s^2)."""
        with self.runtime.ready():
            return self.chain.prior(z)

    @torch.no_grad()
    def latents(
        self, ids: Int64[Tensor, " batch"], config: SamplingConfig
    ) -> Float[Tensor, "batch channels h w"]:
        """Draw w and map it to z with the latent sampler."""
        inputs = self._inputs(ids, config)
        with self.runtime.ready():
            return checked(self.chain.latents(inputs, config)).x

    @torch.no_grad()
    def integrate(self, start: Start, config: SamplingConfig) -> Solution:
        """Integrate x to y along the velocity field; `nfe` counts model evaluations per image."""
        with self.runtime.ready():
            return checked(self.chain.integrate(start, config))

    def velocity_from(self, start: Start, config: SamplingConfig) -> GuidedVelocity:
        """The velocity function of these starts, for a solver."""
        return self.chain.velocity_from(start, config)

    def resolved(self, config: Config) -> Config:
        """The settings with `auto`, null and names of classes replaced by what these models are run with, for records.

        UserError for a solver that does not fit a model and for unknown classes, so that they are refused before any
        work. Names a latent sampler that makes no use of the given classes.
        """
        labels: list[int | str] = [*self.class_numbers(config)]
        is_map, is_latent_map = is_flow_map(self.velocity), is_flow_map(self.latent_sampler)
        solver, steps = config.method(is_map)
        latent_solver, latent_steps = config.latent_method(is_latent_map)
        if steps:
            check_method("", solver, is_map)
        if self.latent_sampler is not None:
            check_method("latent_", latent_solver, is_latent_map)
            if config.labels and not classes_of(self.latent_sampler):
                log.warning(
                    "labels=%s: the latent sampler was trained without classes, so z may belong to another class than "
                    "the label that the flow is given; for z of a class, train one with "
                    "model.latent_sampler.num_classes",
                    list(config.labels),
                )
        return replace(
            config, solver=solver, latent_solver=latent_solver, latent_steps=latent_steps, labels=labels
        )

    def class_numbers(self, config: SamplingConfig) -> list[ClassNumber]:
        """The numbers of the classes that `labels` names.

        UserError for classes that the models were not trained on, and for guidance of a model without classes.
        """
        if not config.labels:
            return []
        if not self.num_classes:
            raise UserError(f"labels={config.labels}: {WITHOUT_CLASSES}")
        check_guidance(config, self.velocity, self.latent_sampler)
        return class_numbers(config.labels, self.class_names, self.num_classes)

    def save_pretrained(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder with all models, for `from_pretrained`; `dtype` stores parameters in that type."""
        path = Path(path)
        width = {WIDTH: self.width.added, SCALE: self.width.scale}
        (path / PIPELINE).unlink(missing_ok=True)  # written last: a half-written folder has none
        for name, module in self.modules().items():
            save_model(
                module, path / name, kept_record(module) | (width if name == "velocity" else {}), dtype
            )
        codec = self.codec.record() if self.codec else None
        about = {"image_size": self.image_size, "models": [*self.modules()], **width, "codec": codec}
        write_json(path / PIPELINE, about)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        decode: Callable[[Tensor], Tensor] | None = None,
        codec: Codec | None = None,
    ) -> LeDiFlowPipeline:
        """Load what `save_pretrained` wrote; models that were trained on latents need the codec, or its decoder."""
        path = Path(path)
        about = read_record(path / PIPELINE, LOAD_ANOTHER, {"image_size": int, "models": list[str]})
        if "codec" in about and decode is None:  # absent in folders older than this entry
            check_codec(path, about["codec"], codec)
        is_learned = "auxiliary" in about["models"]
        return cls(
            load_as(VelocityModel, path / "velocity"),
            load_as(AuxiliaryModel, path / "auxiliary") if is_learned else None,
            load_as(LatentSampler, path / "latent_sampler") if is_learned else None,
            image_size=about["image_size"],
            decode=decode,
            codec=codec,
            prior_widening=about.get(WIDTH, 0.0),  # absent in folders older than the options
            prior_scale=about.get(SCALE, 1.0),
        )


def image_numbers(indices: int | Sequence[int] | Tensor) -> list[int]:
    """The numbers of the images that a call asks for; integers of NumPy and torch will do. ValueError for others."""
    if isinstance(indices, int | Integral):
        if indices < 0:
            raise ValueError(
                f"{indices} images are requested; give a number of images, 0 or more, or their numbers"
            )
        return [*range(index(indices))]
    try:
        return [index(number) for number in indices]
    except TypeError:
        raise ValueError(
            f"images {indices!r} are requested; give a number of images, or their numbers, which are whole"
        ) from None


def recorded_kind(config: SamplingConfig) -> Hashable | None:
    """What a recording of the chain depends on, besides the batch size; None if it cannot be recorded.

    Seed and classes are inputs of the recording. Adaptive solvers read their errors on the way, so they have none.
    """
    if ignores_steps(config.latent_solver) or (config.steps and ignores_steps(config.solver)):
        return None
    names = [field.name for field in fields(SamplingConfig) if field.name not in ("seed", "labels")]
    return (*(getattr(config, name) for name in names), bool(config.labels))
