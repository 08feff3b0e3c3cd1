"""Models for the benchmarks: built from conf/model as in training, with random inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed, conf_folder
from lediflow.config.composition.schema import TrainCommand
from lediflow.engine.precision import computing_in
from lediflow.models import AuxiliarySpec, LatentSamplerSpec, Spec, VelocitySpec, build_model, latent_shape
from lediflow.models.cost import model_cost
from lediflow.nn.cost import ModelCost
from lediflow.stages.flow import velocity_spec

KINDS = ("velocity", "auxiliary", "latent_sampler")
PRECISIONS = ("bfloat16", "autocast", "float32")
BATCHES = {"paper_rgb": 32, "paper_sdv": 64}  # as in the published numbers
SMALL_BATCH = 4


@dataclass(frozen=True)
class Subject:
    """One of the three models of a file in conf/model, and its batch size."""

    model: str  # name of the file
    kind: str
    spec: Spec
    size: int  # side of its images; of its latents for a latent sampler
    batch: int

    def cost(self, dtype: torch.dtype, recompute: bool) -> ModelCost:
        return model_cost(self.spec, self.size, self.size, dtype=dtype, recompute=recompute)


def model_names() -> list[str]:
    return sorted(path.stem for path in (conf_folder() / "model").glob("*.yaml"))


def training_command(model: str, prior: str, overrides: list[str]) -> TrainCommand:
    """The configuration of `python -m lediflow.train model=MODEL prior=PRIOR OVERRIDES...`."""
    chosen = ["experiment=smoke", f"model={model}", f"prior={prior}", "data.path=none"]
    return typed(composed("train", [*chosen, *overrides]))


def subject(model: str, kind: str, *, batch: int | None, prior: str, overrides: list[str]) -> Subject:
    """The model that the training command trains."""
    command = training_command(model, prior, overrides)
    size, spec = command.model.image_size, getattr(command.model, kind)
    if kind == "velocity":
        spec = velocity_spec(command)
    if kind == "latent_sampler":
        size = latent_shape(command.model.auxiliary, size, size)[-1]
    return Subject(model, kind, spec, size, batch or BATCHES.get(model, SMALL_BATCH))


def activations_dtype(precision: str) -> torch.dtype:
    return torch.float32 if precision == "float32" else torch.bfloat16


def random_model(subject: Subject, device: torch.device, route: str) -> nn.Module:
    """The model with weights that are always the same.

    All matrices are random: a new model has zeros in some, and products of zeros take less power, so that a GPU would
    run faster than with trained weights. Their deviation keeps the outputs finite.
    """
    torch.manual_seed(0)
    with device:
        module = build_model(subject.spec, attention_route=route)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return module


def built(
    subject: Subject, *, device: torch.device, precision: str, route: str, recompute: bool, mode: str | None
) -> nn.Module:
    """The model as it will be called; `mode` is torch.compile's, None leaves it uncompiled.

    With bfloat16 weights are bfloat16, with autocast float32.
    """
    module = random_model(subject, device, route)
    if precision == "bfloat16":
        module = module.to(torch.bfloat16)
    # the auxiliary model samples z in float32, so its matrix products are in bfloat16 only with autocast
    is_autocast = precision == "autocast" or (precision == "bfloat16" and subject.kind == "auxiliary")
    if mode is not None:
        module.compile(fullgraph=True, mode=mode)
    inner = "bfloat16" if is_autocast else "float32"
    return computing_in(inner, module, device, compile_mode=None, recompute=recompute)


def inputs_of(subject: Subject, device: torch.device, precision: str) -> tuple[Tensor, ...]:
    """A batch for the model's training pass."""
    spec, batch, size = subject.spec, subject.batch, subject.size
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    if isinstance(spec, AuxiliarySpec):
        noise = torch.randn(batch, *latent_shape(spec, size, size), device=device)
        return torch.randn(batch, spec.image_channels, size, size, **options), noise
    t = torch.rand(batch, device=device)
    if isinstance(spec, LatentSamplerSpec):
        return torch.randn(batch, spec.latent_channels, size, size, **options), t
    assert isinstance(spec, VelocitySpec)
    x = torch.randn(batch, spec.image_channels, size, size, **options)
    return (x, t, torch.randn(batch, *spec.latent_shape, **options)) if spec.latent_dim else (x, t)
