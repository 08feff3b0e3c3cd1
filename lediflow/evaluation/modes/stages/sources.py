"""Every source of z in `mode=stages`: images of both splits, the latent sampler, and the baseline without z."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import samples_of, spread_over
from lediflow.errors import UserError
from lediflow.evaluation.config import GRID_STEPS, EvaluateConfig
from lediflow.evaluation.cost import evaluations_per_image
from lediflow.evaluation.images import GeneratedImages, ShardImages
from lediflow.evaluation.mmd import FEWEST
from lediflow.evaluation.modes.grid import settings_of
from lediflow.evaluation.modes.stages.latents import (
    ImagesFromReal,
    RealLatents,
)
from lediflow.evaluation.modes.stages.rows import LatentSource
from lediflow.evaluation.modes.stages.runs import MeasuredRuns
from lediflow.evaluation.session import Session
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SOLVERS = ("midpoint",)  # the default of grid.solvers for a velocity


def real_latents(
    session: Session, pipeline: LeDiFlowPipeline, runs: MeasuredRuns, reader: ShardReader
) -> dict[str, RealLatents]:
    """The encoder's draws for training images and for held-out images."""
    command = session.command
    fraction = runs.flow.exported_facts()["data"]["held_out_fraction"]
    found = {}
    for name, split in (("training", "train"), ("heldout", "heldout")):
        samples = spread_over(samples_of(split, reader.index.table["key"], fraction), command.count)
        if len(samples) < FEWEST:
            raise UserError(
                f"data.held_out_fraction={fraction:g} of the training leaves {len(samples)} {name} images of the "
                f"{len(reader)} in {command.data.path}; an interval needs {FEWEST} at least: train with "
                "another fraction"
            )
        signals = ShardImages(reader, samples, pipeline.decode, pipeline.device)
        found[name] = RealLatents(pipeline, signals, command.seed)
    return found


def sources(
    session: Session, pipeline: LeDiFlowPipeline, runs: MeasuredRuns, real: dict[str, RealLatents]
) -> Iterator[LatentSource]:
    """Every source of z with its settings; the baseline's weights are loaded last, when they are needed."""
    command = session.command
    codec = {"codec": runs.flow.exported_facts()["codec"]}
    flow = {"flow": runs.flow.weights_hash(), "width": pipeline.width._asdict()} | codec
    learned = settings(command, pipeline)
    for name, latents in real.items():
        yield from_real(name, latents, flow, command, learned)
    both = flow | {"latent_sampler": runs.sampler.weights_hash()}
    yield from_pipeline("sampler", pipeline, both, command, learned)
    if runs.baseline is not None:
        baseline = session.pipeline(str(runs.baseline.root), None)
        models = {"flow": runs.baseline.weights_hash()} | codec
        yield from_pipeline("gaussian", baseline, models, command, settings(command, baseline))


def from_real(
    name: str,
    latents: RealLatents,
    models: dict[str, Any],
    command: EvaluateConfig,
    configs: list[SamplingConfig],
) -> LatentSource:
    """A source of images generated from the encoder's draws."""

    def images(config: SamplingConfig) -> ImagesFromReal:
        return ImagesFromReal(latents, config, command.count, models)

    def evaluations(config: SamplingConfig) -> int:
        made = images(config)
        return evaluations_per_image(config, lambda number: made.generated(range(number, number + 1)).nfe)

    return LatentSource(name, configs, images, evaluations, latents.sources(command.count))


def from_pipeline(
    name: str,
    pipeline: LeDiFlowPipeline,
    models: dict[str, Any],
    command: EvaluateConfig,
    configs: list[SamplingConfig],
) -> LatentSource:
    """A source of images that a whole pipeline generates."""

    def images(config: SamplingConfig) -> GeneratedImages:
        return GeneratedImages(pipeline, config, command.count, models)

    def evaluations(config: SamplingConfig) -> int:
        return evaluations_per_image(config, lambda number: pipeline([number], config).nfe)

    return LatentSource(name, configs, images, evaluations)


def settings(command: EvaluateConfig, pipeline: LeDiFlowPipeline) -> list[SamplingConfig]:
    """The prior alone, then each solver at each number of steps."""
    steps = sorted({0, *(command.grid.steps or GRID_STEPS)})
    grid = dataclasses.replace(command.grid, steps=steps, temperatures=[command.temperature])
    asked = dataclasses.replace(command, grid=grid)
    return settings_of(asked, pipeline, is_alone=command.baseline is None, default=SOLVERS)
