"""`mode=grid`: one or several runs at every combination of solver, steps and temperature, against photographs.

Rows that exist are not measured again. Files in the output folder:

results.json    every row, the shape of each run's paths, the MMD between photographs
table.md        what each run reaches and at what cost, and every row
pareto.png      quality against milliseconds and against evaluations; also pareto.svg
images-RUN.png  samples at fixed noise, a row for each setting
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.config import (
    GRID_SOLVERS,
    GRID_STEPS,
    EvaluateConfig,
    GridConfig,
    fitting_solvers,
    request,
)
from lediflow.evaluation.cost import path_shape
from lediflow.evaluation.modes.rows import RowMaker, Run
from lediflow.evaluation.references import references
from lediflow.evaluation.session import Session
from lediflow.evaluation.views import print_rows, setting, write_views
from lediflow.flow.solvers import ignores_steps
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.methods import is_flow_map

GRID_SHOWN = 8  # samples per setting in images-RUN.png
PATHS = 64  # samples whose paths are measured


def evaluate_grid(session: Session) -> dict[str, Any]:
    """Measure every setting of every run. Rows that exist are not measured again."""
    runs = chosen_runs(session)
    check_same_split(runs, session.command.data.split)
    output = Path(session.command.output or session.runs / "grid")
    rows: list[dict[str, Any]] = []
    paths, facts = {}, {}
    for run in runs:
        pipeline = session.pipeline(run.flow, run.sampler)
        session.claim(output)
        session.withdraw(output)
        configs = settings_of(session.command, pipeline, is_alone=len(runs) == 1)
        maker = RowMaker.build(session, run, pipeline, references(session, pipeline, run.facts), output)
        rows += maker.rows(configs)
        facts[run.name] = maker.facts()
        paths[run.name] = shape(session, pipeline)
        write_images(session, pipeline, configs, output / f"images-{run.name}.png")
    results = {
        "asked": request(session.command),
        "rows": rows,
        "paths": paths,
        "runs": facts,
    }
    baseline = next((run.name for run in runs if run.facts["prior"] == "gaussian"), None)
    write_views(
        session,
        output,
        rows,
        real_mmd=facts[runs[0].name]["real_mmd"],
        baseline=baseline if len(runs) > 1 else None,
        paths=paths,
        floor=facts[runs[0].name].get("codec_floor"),
    )
    session.write(output, results, session.command.seed)
    print_rows(session, results)
    session.say(f"written: {output}/results.json, table.md, pareto.png, pareto.svg, images-*.png")
    return results


def check_same_split(runs: Sequence[Run], split: str) -> None:
    """UserError if a split has other images for one run than for another, so that they could not be compared."""
    fractions = {run.name: run.facts["data"]["held_out_fraction"] for run in runs} if split != "all" else {}
    if len({*fractions.values()}) > 1:
        found = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
        raise UserError(
            f"data.split={split} has other images for each data.held_out_fraction of the trainings ({found}), so their "
            "numbers could not be compared; give data.split=all, or runs of one fraction"
        )


def chosen_runs(session: Session) -> list[Run]:
    """The runs of runs={NAME: [FLOW, SAMPLER]}, or the one of run= and sampler=."""
    command = session.command
    if command.run is not None:
        return [Run(Path(command.run).name, command.run, command.sampler)]
    if not isinstance(command.runs, Mapping):
        raise UserError(
            f"runs={command.runs} is not a mapping; write 'runs={{NAME:[FLOW_RUN,SAMPLER_RUN],BASELINE:[FLOW_RUN]}}'"
        )
    for name, folders in command.runs.items():
        if not isinstance(folders, list) or not 1 <= len(folders) <= 2:
            raise UserError(
                f"runs.{name}={folders}: give [FLOW_RUN,SAMPLER_RUN], or [FLOW_RUN] for a Gaussian baseline"
            )
    return [
        Run(name, folders[0], folders[1] if len(folders) == 2 else None)
        for name, folders in command.runs.items()
    ]


def shape(session: Session, pipeline: LeDiFlowPipeline) -> dict[str, float]:
    """Shape of the paths, measured by rank 0: a few samples suffice."""
    found: dict[str, float] | None = None
    with session.group.together("looking at the paths"):
        if session.group.is_first:
            count = min(PATHS, session.command.count)
            found = path_shape(
                pipeline, session.command, count, batch_size=session.command.batch_size
            )._asdict()
    return session.group.broadcast(found)


def write_images(
    session: Session, pipeline: LeDiFlowPipeline, configs: list[SamplingConfig], path: Path
) -> None:
    """Write the first samples of every setting as a picture, on rank 0."""
    with session.group.together(f"writing {path}"):
        if session.group.is_first:
            rows = [pipeline(GRID_SHOWN, config).images.cpu() for config in configs]
            picture = labelled_grid(rows, [setting(asdict(config)) for config in configs])
            with whole_or_absent(path) as stream:
                picture.save(stream, "PNG")


def settings_of(
    command: EvaluateConfig,
    pipeline: LeDiFlowPipeline,
    *,
    is_alone: bool,
    default: Sequence[str] = GRID_SOLVERS,
) -> list[SamplingConfig]:
    """The settings that a pipeline is measured at; UserError, before any work, for one that does not fit its models.

    `is_alone` as in `fitting_solvers`; `default` are the solvers of a velocity if none are given.
    """
    is_map, is_learned = is_flow_map(pipeline.velocity), pipeline.auxiliary is not None
    solvers = fitting_solvers(command.grid.solvers, default, is_flow_map=is_map, is_alone=is_alone)
    base = SamplingConfig(**{field.name: getattr(command, field.name) for field in fields(SamplingConfig)})
    chosen = cells(base, replace(command.grid, solvers=solvers), is_learned=is_learned)
    return [pipeline.resolved(config) for config in chosen]


def cells(base: SamplingConfig, grid: GridConfig, *, is_learned: bool) -> list[SamplingConfig]:
    """All combinations in the order of temperatures, solvers and steps, without duplicates.

    0 steps are draws of the prior, with any solver, so they occur once; the Gaussian baseline has none, as its prior is
    noise. An adaptive solver occurs once, since it ignores the number of steps.
    """
    chosen: dict[tuple[str, int, float], SamplingConfig] = {}
    for temperature in grid.temperatures:
        for solver in grid.solvers or GRID_SOLVERS:
            for steps in sorted(grid.steps or GRID_STEPS):
                key = (solver, steps, temperature)
                if steps == 0:
                    key = ("none", 0, temperature)
                elif ignores_steps(solver):
                    key = (solver, -1, temperature)
                if key not in chosen and (is_learned or steps):
                    chosen[key] = replace(base, solver=solver, steps=steps, temperature=temperature)
    return list(chosen.values())
