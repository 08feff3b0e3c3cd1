"""Quality against cost over solver x steps x temperature, of one or several runs.

results.json   every row, the paths' shape, what photographs reach among themselves
table.md       what each run reaches and at what cost, and every row
pareto.png     quality against milliseconds and against evaluations; also pareto.svg
images-RUN.png samples at fixed noise, a row for each setting
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluate.real import references
from lediflow.evaluate.rows import RowMaker
from lediflow.evaluate.runs import Run, request, say_rows
from lediflow.evaluate.session import Session
from lediflow.evaluate.views import write_views
from lediflow.evaluation.grid.cells import cells
from lediflow.evaluation.grid.pictures import labelled_grid
from lediflow.evaluation.grid.table import setting
from lediflow.evaluation.trajectories import path_shape
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SHOWN = 8  # samples of each setting
PATHS = 64  # whose shape is taken


def evaluate_grid(session: Session) -> dict[str, Any]:
    """Rows that are there already are not measured again."""
    runs = chosen_runs(session)
    output = Path(session.command.output or Path(session.command.paths.runs) / "grid")
    rows: list[dict[str, Any]] = []
    paths, facts = {}, {}
    for run in runs:
        pipeline = session.pipeline(run.flow, run.sampler)
        session.claim(output)
        session.withdraw(output)
        configs = cells(session.command, session.command.grid, is_learned=pipeline.auxiliary is not None)
        maker = RowMaker.build(session, run, pipeline, references(session, pipeline, run.facts), output)
        rows += maker.rows(configs)
        facts[run.name] = maker.facts()
        paths[run.name] = shape(session, pipeline)
        write_images(session, pipeline, configs, output / f"images-{run.name}.png")
    results = {"asked": request(session.command), "rows": rows, "paths": paths, "runs": facts}
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
    say_rows(session, results)
    session.say(f"written: {output}/results.json, table.md, pareto.png, pareto.svg, images-*.png")
    return results


def chosen_runs(session: Session) -> list[Run]:
    """From runs={NAME: [FLOW, SAMPLER]}, or the one of run= and sampler=."""
    command = session.command
    if command.run is not None:
        return [Run(Path(command.run).name, command.run, command.sampler)]
    for name, folders in (command.runs or {}).items():
        if not 1 <= len(folders) <= 2:
            raise UserError(
                f"runs.{name}={folders}: give [FLOW_RUN,SAMPLER_RUN], or [FLOW_RUN] for a Gaussian baseline"
            )
    return [
        Run(name, folders[0], folders[1] if len(folders) == 2 else None)
        for name, folders in (command.runs or {}).items()
    ]


def shape(session: Session, pipeline: LeDiFlowPipeline) -> dict[str, float]:
    """Of the paths, by the first rank: a few hundred are enough."""
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
    """The first samples of every setting."""
    with session.group.together(f"writing {path}"):
        if session.group.is_first:
            rows = [pipeline(SHOWN, config).images.cpu() for config in configs]
            picture = labelled_grid(rows, [setting(asdict(config)) for config in configs])
            with whole_or_absent(path) as stream:
                picture.save(stream, "PNG")
