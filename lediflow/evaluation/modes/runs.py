"""`mode=metrics` and `mode=grid`: one or several runs against photographs, at several settings of the sampler.

Finished rows are reused and interrupted work continues. Files in the output folder:

results.json          every row; for a grid also the shape of the paths and the level of real photographs
table.md              what each run reaches and at what cost, and every row
pareto.png            quality against milliseconds and against evaluations; also pareto.svg
images-RUN.png        a grid's samples at fixed noise, a row for each setting
pictures.safetensors  tensors for the report, of mode=metrics
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from safetensors.torch import save
from torch import Tensor

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.order import samples_of
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.grid import cells
from lediflow.evaluation.metrics import table_record
from lediflow.evaluation.modes.rows import RowMaker
from lediflow.evaluation.pictures import SHOWN, labelled_grid, prior_pictures, step_pictures
from lediflow.evaluation.references import open_shards, references
from lediflow.evaluation.results import read_results
from lediflow.evaluation.session import RESULTS, Session
from lediflow.evaluation.trajectories import path_shape
from lediflow.evaluation.views import VIEWS, describe, setting, write_views
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

REALS_SHOWN = 64
IRRELEVANT = ("paths", "output", "keep_features")  # options that no number depends on
PICTURES = "pictures.safetensors"
# options that are paths; their contents are identified by hashes (`path`: shards, and the extractor's weights)
PLACES = ("run", "sampler", "path", "photographs", "statistics", "codec_path")
GRID_SHOWN = 8  # samples per setting in images-RUN.png
PATHS = 64  # samples whose paths are measured


class Run(NamedTuple):
    """A flow run and, if its prior is learned, the run of its latent sampler."""

    name: str
    flow: str
    sampler: str | None

    @property
    def facts(self) -> dict[str, Any]:
        return RunFolder(Path(self.flow)).exported_facts()


def evaluate_run(session: Session) -> dict[str, Any]:
    """Measure a flow run at each number of steps; results of the same weights and options are reused."""
    command = session.command
    assert command.run is not None
    run = Run(Path(command.run).name, command.run, command.sampler)
    output = Path(command.output or f"{command.run}/results")
    pipeline = session.pipeline(run.flow, run.sampler)
    reader = open_shards(session, command.data.path)
    asked = request(command) | {
        "weights": session.models.hashes(run.flow, run.sampler),
        "data": reader.index.fingerprint,
        **table_record(),
    }
    if found := session.group.broadcast(finished_results(output, asked)):
        session.say(f"already evaluated: {output / RESULTS}")
        say_rows(session, found)
        return found
    session.claim(output)
    configs = [step_config(command, steps) for steps in command.step_counts]
    maker = RowMaker.build(session, run, pipeline, references(session, pipeline, run.facts), output)
    results = {"asked": asked, "rows": maker.rows(configs), **maker.facts()}
    session.withdraw(output)
    write_pictures(session, output, pipeline, run, configs, reader)
    floor = results.get("codec_floor")
    write_views(session, output, results["rows"], real_mmd=results["real_mmd"], floor=floor)
    session.write(output, results, command.seed)
    say_rows(session, results)
    return results


def request(command: EvaluateConfig) -> dict[str, Any]:
    """The options that numbers depend on, for results.json."""
    options = dataclasses.asdict(command)
    return {"options": {key: value for key, value in options.items() if key not in IRRELEVANT}}


def say_rows(session: Session, results: dict[str, Any]) -> None:
    for row in results["rows"]:
        session.say(describe(row))


def finished_results(output: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Existing results, if their figures are there and weights and options are the same; else None."""
    if not all((output / name).is_file() for name in (RESULTS, PICTURES, *VIEWS)):
        return None
    found = read_results(output / RESULTS)["results"]
    return found if without_places(found.get("asked")) == without_places(asked) else None


def without_places(asked: Any) -> Any:
    """A request without its paths, whose contents are identified by hashes."""
    if not isinstance(asked, dict):
        return asked
    return {key: without_places(value) for key, value in asked.items() if key not in PLACES}


def step_config(config: SamplingConfig, steps: int) -> SamplingConfig:
    return dataclasses.replace(config, steps=steps)


def write_pictures(
    session: Session,
    output: Path,
    pipeline: LeDiFlowPipeline,
    run: Run,
    configs: list[SamplingConfig],
    reader: ShardReader,
) -> None:
    """Write the pictures for the report on rank 0."""
    with session.group.together("making pictures"):
        if session.group.is_first:
            content = save(figures(session.command, reader, pipeline, run, configs))
            with whole_or_absent(output / PICTURES) as stream:
                stream.write(content)


def figures(
    command: EvaluateConfig,
    reader: ShardReader,
    pipeline: LeDiFlowPipeline,
    run: Run,
    configs: list[SamplingConfig],
) -> dict[str, Tensor]:
    pictures = step_pictures(pipeline, configs)
    chosen = shown_samples(run, reader)
    latents = next(each_once(reader, chosen, len(chosen))).images.to(pipeline.device)
    pictures["reals"] = pipeline.decode(latents).cpu()
    if pipeline.auxiliary is not None:
        pictures |= prior_pictures(
            pipeline.auxiliary,
            latents[:SHOWN],
            flow=lambda start: pipeline.integrate(start, command).x,
            decode=pipeline.decode,
            seed=command.seed,
            width=pipeline.width,
        )
    return {name: tensor.contiguous() for name, tensor in pictures.items()}


def shown_samples(run: Run, reader: ShardReader) -> Int64[np.ndarray, " samples"]:
    """Real images for the report, spread over the set; held-out ones if training held out some."""
    fraction = run.facts["data"]["held_out_fraction"]
    candidates = samples_of("heldout" if fraction else "all", reader.index.table["key"], fraction)
    spread = np.linspace(0, len(candidates) - 1, num=min(REALS_SHOWN, len(candidates)), dtype=np.int64)
    return candidates[spread]


def evaluate_grid(session: Session) -> dict[str, Any]:
    """Measure every setting of every run. Rows that exist are not measured again."""
    runs = chosen_runs(session)
    output = Path(session.command.output or session.runs / "grid")
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
    """The runs of runs={NAME: [FLOW, SAMPLER]}, or the one of run= and sampler=."""
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
