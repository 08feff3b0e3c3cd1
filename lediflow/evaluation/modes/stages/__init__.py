"""`mode=stages`: which stage limits the quality, by images from z of training images, held-out images and the sampler.

stages.json    rows by source of z, solver and steps; losses; the verdict
stages.png     the rows as lines, under the verdict; also stages.svg
rows/          finished rows, reused by the same command

This file is the mode: its options, the runs, the sources of z. `latents` makes images from z of real ones, `rows`
measures them, `estimate` is their MMD, `evidence` what a verdict is based on, `verdict` the decision rule with its
text, `record` reads and writes the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import samples_of, spread_over
from lediflow.errors import UserError
from lediflow.evaluation.config import GRID_STEPS, EvaluateConfig, request
from lediflow.evaluation.images import GeneratedImages, ShardImages
from lediflow.evaluation.mmd import FEWEST
from lediflow.evaluation.modes.grid import settings_of
from lediflow.evaluation.modes.stages.latents import (
    ImagesFromReal,
    RealLatents,
    compare_moments,
    latent_moments,
    prior_facts,
)
from lediflow.evaluation.modes.stages.record import (
    STAGES_FILE,
    evidence_of,
    heading,
    run_losses,
    stage_lines,
    verdict_record,
    write_stages,
)
from lediflow.evaluation.modes.stages.rows import LatentSource, StageRow, StageRows
from lediflow.evaluation.modes.stages.verdict import judge
from lediflow.evaluation.references import check_signals, open_shards, references
from lediflow.evaluation.results import birth_certificate
from lediflow.evaluation.session import Session
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.stages import place_of
from lediflow.text import shown_hash

FIGURE = "stages"
SOLVERS = ("midpoint",)  # the default of grid.solvers for a velocity
GPU_BATCH, GPU_PIXELS = 512, 2**21  # images at once on a GPU, and how many pixels they have at most


class Chain(NamedTuple):
    """The runs that images come from."""

    auxiliary: RunFolder
    flow: RunFolder
    sampler: RunFolder
    baseline: RunFolder | None

    def named(self) -> dict[str, RunFolder]:
        return {name: folder for name, folder in self._asdict().items() if folder is not None}


def evaluate_stages(session: Session) -> dict[str, Any]:
    """Measure and write stages.json with its figure; existing rows are reused. Every rank must call it."""
    command = session.command
    check_options(session)
    assert command.run is not None
    output = Path(command.output or f"{command.run}/results/stages")
    pipeline = session.pipeline(command.run, command.sampler)
    if pipeline.auxiliary is None:
        raise UserError(
            f"run={command.run} is the Gaussian baseline, which has one stage; give a flow with a learned prior as "
            "run= and this one as baseline="
        )
    session = with_larger_batches(session, pipeline)
    chain = find_chain(session)
    reader = open_shards(session, command.data.path)
    check_signals(reader, chain.flow.exported_facts(), command.data.path)
    check_trained_on(chain, reader, command.data.path)
    real = real_latents(session, pipeline, chain, reader)
    session.claim(output)
    rows = StageRows.build(session, references(session, pipeline, chain.flow.exported_facts()), output)
    found = [row for source in sources(session, pipeline, chain, real) for row in rows.rows_for(source)]
    losses = stage_losses(session, pipeline, chain, real)
    results = {"asked": request(command), "rows": found, **rows.facts(), "losses": losses}
    verdict = judge(evidence_of(results))
    write(session, output, results | {"verdict": verdict_record(verdict)})
    for row in found:
        session.say(describe_stage(row))
    session.say(f"limits: {verdict.limits}. {verdict.text}")
    session.say(f"written: {output}/{STAGES_FILE}, {FIGURE}.png, {FIGURE}.svg")
    return results


def check_options(session: Session) -> None:
    command = session.command
    if command.run is None:
        raise UserError(
            "mode=stages measures one chain, but no run was given; give run=FLOW_RUN sampler=SAMPLER_RUN"
        )
    if command.labels:
        raise UserError(
            f"labels={command.labels}: mode=stages draws without classes, since the z of a real image belongs to "
            "the class of that image; leave labels out"
        )
    if command.grid.temperatures != [1.0]:
        raise UserError(
            f"grid.temperatures={command.grid.temperatures}: mode=stages compares at one temperature; give "
            "temperature=..."
        )
    if command.grid.steps is not None and not any(command.grid.steps):
        raise UserError(
            "grid.steps=[0] is the prior alone, but a verdict on the flow needs steps; give one number "
            "above 0 in grid.steps"
        )
    if command.metrics.estimator != "exact":
        raise UserError(
            f"metrics.estimator={command.metrics.estimator}: mode=stages leaves pairs with one source out, which only "
            "metrics.estimator=exact can"
        )


def with_larger_batches(session: Session, pipeline: LeDiFlowPipeline) -> Session:
    """A session whose batches use a GPU well, within `GPU_PIXELS`; a larger `batch_size` is kept."""
    if session.device.type != "cuda":
        return session
    fitting = min(GPU_BATCH, GPU_PIXELS // pipeline.image_size**2)
    larger = max(session.command.batch_size, fitting)
    return dataclasses.replace(session, command=dataclasses.replace(session.command, batch_size=larger))


def find_chain(session: Session) -> Chain:
    """The runs of the command; the auxiliary run is the one whose hash the flow's export holds."""
    command = session.command
    assert command.run is not None and command.sampler is not None
    flow = RunFolder(Path(command.run))
    parent = flow.exported_facts()["parent"]
    auxiliary = session.models.find_parent({flow.root: parent}, parent["sha256"])
    baseline = find_baseline(command.baseline) if command.baseline else None
    return Chain(auxiliary, flow, RunFolder(Path(command.sampler)), baseline)


def find_baseline(path: str) -> RunFolder:
    """The run of the Gaussian baseline; UserError, before anything is measured, for any other run."""
    folder, command = RunFolder(Path(path)), "python -m lediflow.train stage=flow prior=gaussian ..."
    folder.require_export(f"baseline={path}", command)
    facts = folder.exported_facts()
    is_flow = place_of(facts["stage"]) == "flow"
    if not is_flow or facts["prior"] != "gaussian":
        found = f"stage={facts['stage']}" + (" from a learned prior" if is_flow else "")
        raise UserError(f"baseline={path} is a run of {found}; give one of stage=flow prior=gaussian")
    return folder


def check_trained_on(chain: Chain, reader: ShardReader, path: str) -> None:
    """Refuse a chain whose models were not all trained on the same split of these shards."""
    fraction = chain.flow.exported_facts()["data"]["held_out_fraction"]
    for name, folder in chain.named().items():
        data = folder.exported_facts()["data"]
        if data["fingerprint"] != reader.index.fingerprint:
            raise UserError(
                f"{name} {folder.root} was trained on other data than data.path={path} (index "
                f"{shown_hash(data['fingerprint'])} and {shown_hash(reader.index.fingerprint)}), so none of these "
                "images is known to be of its training or held out; give the shards of its training, or train all "
                "stages on these"
            )
        if data["held_out_fraction"] != fraction:
            raise UserError(
                f"{name} {folder.root} was trained with data.held_out_fraction={data['held_out_fraction']:g}, the flow "
                f"with {fraction:g}: an image held out by one is training data of the other; train all "
                "stages with the same fraction"
            )
    if not fraction:
        raise UserError(
            f"run={chain.flow.root} was trained on all images of {path}: without held-out images it cannot be "
            "measured whether the prior memorises; train all stages with data.held_out_fraction=0.05"
        )


def real_latents(
    session: Session, pipeline: LeDiFlowPipeline, chain: Chain, reader: ShardReader
) -> dict[str, RealLatents]:
    """The encoder's draws for training images and for held-out images."""
    command = session.command
    fraction = chain.flow.exported_facts()["data"]["held_out_fraction"]
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
    session: Session, pipeline: LeDiFlowPipeline, chain: Chain, real: dict[str, RealLatents]
) -> Iterator[LatentSource]:
    """Every source of z with its settings; the baseline's weights are loaded last, when they are needed."""
    command = session.command
    codec = {"codec": chain.flow.exported_facts()["codec"]}
    flow = {"flow": chain.flow.weights_hash(), "width": pipeline.width._asdict()} | codec
    learned = settings(command, pipeline)
    for name, latents in real.items():
        yield from_real(name, latents, flow, command, learned)
    both = flow | {"latent_sampler": chain.sampler.weights_hash()}
    yield from_pipeline("sampler", pipeline, both, command, learned)
    if chain.baseline is not None:
        baseline = session.pipeline(str(chain.baseline.root), None)
        models = {"flow": chain.baseline.weights_hash()} | codec
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
        return images(config).generated(range(1)).nfe

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

    return LatentSource(name, configs, images, lambda config: pipeline(1, config).nfe)


def settings(command: EvaluateConfig, pipeline: LeDiFlowPipeline) -> list[SamplingConfig]:
    """The prior alone, then each solver at each number of steps."""
    steps = sorted({0, *(command.grid.steps or GRID_STEPS)})
    grid = dataclasses.replace(command.grid, steps=steps, temperatures=[command.temperature])
    asked = dataclasses.replace(command, grid=grid)
    return settings_of(asked, pipeline, is_alone=command.baseline is None, default=SOLVERS)


def stage_losses(
    session: Session, pipeline: LeDiFlowPipeline, chain: Chain, real: dict[str, RealLatents]
) -> dict[str, Any]:
    """Losses of every run from its log, and measurements of the prior and of z on images of both splits."""
    command = session.command
    found: dict[str, Any] = {name: run_losses(folder.events) for name, folder in chain.named().items()}
    facts = {}
    for name, latents in real.items():
        advance, close = session.progress(f"the prior on {name} images", len(latents.signals))
        facts[name] = prior_facts(latents, session.group, command.batch_size, advance)
        close()
    base = settings(command, pipeline)[0]
    moments = latent_moments(
        lambda ids: pipeline.latents(ids, base),
        command.count,
        pipeline.device,
        session.group,
        command.batch_size,
    )
    return found | {
        "prior": {name: about.summary for name, about in facts.items()},
        "prior_widening": pipeline.width.added,
        "prior_scale": pipeline.width.scale,
        "latents": {
            **{name: about.moments.summary() for name, about in facts.items()},
            "sampler": moments.summary()
            | {"against_training": compare_moments(moments, facts["training"].moments)},
        },
    }


def levels(results: dict[str, Any]) -> dict[str, StageRow]:
    """MMD between halves of the photographs and of the codec, where they were measured."""
    named = {"real": results["real"], "floor": results["codec_floor"]}
    return {name: found for name, found in named.items() if found is not None}


def describe_stage(row: StageRow) -> str:
    """One line about a row, for the terminal."""
    setting = (
        f"{row['solver']} {row['steps']} steps ({row['nfe']:g} NFE)" if row["steps"] else "the prior alone"
    )
    of = f"{row['images']} images" + (f" of {row['real_images']} real ones" if "real_images" in row else "")
    return f"z={row['z']}, {setting}: {row['mmd_name']} {row['mmd']:.3f} [{row['low']:.3f}, {row['high']:.3f}] on {of}"


def write(session: Session, output: Path, results: dict[str, Any]) -> None:
    """Write the figure, then stages.json, on rank 0."""
    with session.group.together(f"writing {output / STAGES_FILE}"):
        if session.group.is_first:
            from lediflow.evaluation.plots.quality import stages_figure
            from lediflow.evaluation.plots.style import write_figure

            (output / STAGES_FILE).unlink(
                missing_ok=True
            )  # remove the old numbers before the new figure exists
            figure = stages_figure(
                stage_lines(results),
                results["rows"][0]["mmd_name"],
                heading=heading(results),
                text=results["verdict"]["text"],
                **{name: found["mmd"] for name, found in levels(results).items()},
            )
            write_figure(figure, output / FIGURE)
            certificate = birth_certificate(seed=session.command.seed) | {"ranks": session.group.world_size}
            write_stages(output / STAGES_FILE, results, certificate)
