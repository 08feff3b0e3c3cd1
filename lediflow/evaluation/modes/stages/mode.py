"""The mode itself: its options, the order of the work, losses, and what is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lediflow.errors import UserError
from lediflow.evaluation.config import request
from lediflow.evaluation.modes.stages.latents import (
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
from lediflow.evaluation.modes.stages.rows import StageRow, StageRows
from lediflow.evaluation.modes.stages.runs import MeasuredRuns, check_trained_on, find_runs
from lediflow.evaluation.modes.stages.sources import real_latents, settings, sources
from lediflow.evaluation.modes.stages.verdict import judge
from lediflow.evaluation.references import check_signals, open_shards, references
from lediflow.evaluation.results import birth_certificate
from lediflow.evaluation.session import Session
from lediflow.sampling import LeDiFlowPipeline
from lediflow.text import steps_text

FIGURE = "stages"
GPU_BATCH, GPU_PIXELS = 512, 2**21  # images at once on a GPU, and how many pixels they have at most


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
    runs = find_runs(session)
    reader = open_shards(session, command.data.path)
    check_signals(reader, runs.flow.exported_facts(), command.data.path)
    check_trained_on(runs, reader, command.data.path)
    real = real_latents(session, pipeline, runs, reader)
    session.claim(output)
    rows = StageRows.build(session, references(session, pipeline, runs.flow.exported_facts()), output)
    found = [row for source in sources(session, pipeline, runs, real) for row in rows.rows_for(source)]
    losses = stage_losses(session, pipeline, runs, real)
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


def stage_losses(
    session: Session, pipeline: LeDiFlowPipeline, runs: MeasuredRuns, real: dict[str, RealLatents]
) -> dict[str, Any]:
    """Losses of every run from its log, and measurements of the prior and of z on images of both splits."""
    command = session.command
    found: dict[str, Any] = {name: run_losses(folder.events) for name, folder in runs.named().items()}
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
        f"{row['solver']} {steps_text(row['steps'])} ({row['nfe']:g} NFE)"
        if row["steps"]
        else "the prior alone"
    )
    of = f"{row['images']} images" + (f" of {row['real_images']} real ones" if "real_images" in row else "")
    return f"z={row['z']}, {setting}: {row['mmd_name']} {row['mmd']:.3f} [{row['low']:.3f}, {row['high']:.3f}] on {of}"


def write(session: Session, output: Path, results: dict[str, Any]) -> None:
    """Write the figure, then stages.json, on rank 0."""
    with session.group.together(f"writing {output / STAGES_FILE}"):
        if session.group.is_first:
            from lediflow.evaluation.plots.quality import stages_figure
            from lediflow.evaluation.plots.style import write_figure

            # remove the old numbers before the new figure exists
            (output / STAGES_FILE).unlink(missing_ok=True)
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
