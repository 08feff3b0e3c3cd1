"""A run against photographs, for each number of solver steps; what is finished is reused, what is begun continued."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from safetensors.torch import save
from torch import Tensor

from lediflow.config.load import pipeline_hashes
from lediflow.config.schema import EvaluateCommand
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.order import samples_of
from lediflow.disk import whole_or_absent
from lediflow.evaluate.describing import describe
from lediflow.evaluate.real import open_shards, references
from lediflow.evaluate.rows import RowMaker
from lediflow.evaluate.session import RESULTS, Session
from lediflow.evaluate.views import VIEWS, write_views
from lediflow.evaluation.figures import SHOWN, prior_pictures, step_pictures
from lediflow.evaluation.results import read_results
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

REALS_SHOWN = 64
IRRELEVANT = ("paths", "output", "keep_features")  # options that change no number
PICTURES = "pictures.safetensors"
# paths in a request, of what is pinned by a hash; `path`: of the shards, and of the extractor's weights
PLACES = ("run", "sampler", "path", "photographs", "statistics", "codec_path")


class Run(NamedTuple):
    """A flow and, where its prior is learned, its latent sampler."""

    name: str
    flow: str
    sampler: str | None

    @property
    def facts(self) -> dict[str, Any]:
        return RunFolder(Path(self.flow)).exported_facts()


def evaluate_run(session: Session) -> dict[str, Any]:
    """Each step count of a flow run against the shards; results of the same weights and options are reused."""
    command = session.command
    assert command.run is not None
    run = Run(Path(command.run).name, command.run, command.sampler)
    output = Path(command.output or f"{command.run}/results")
    pipeline = session.pipeline(run.flow, run.sampler)
    reader = open_shards(session, command.data.path)
    asked = request(command) | {
        "weights": pipeline_hashes(run.flow, run.sampler),
        "data": reader.index.fingerprint,
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


def request(command: EvaluateCommand) -> dict[str, Any]:
    """The options that a number depends on."""
    options = dataclasses.asdict(command)
    return {"options": {key: value for key, value in options.items() if key not in IRRELEVANT}}


def say_rows(session: Session, results: dict[str, Any]) -> None:
    for row in results["rows"]:
        session.say(describe(row))


def finished_results(output: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The results that are there already, with their figures, if they answer the same question."""
    if not all((output / name).is_file() for name in (RESULTS, PICTURES, *VIEWS)):
        return None
    found = read_results(output / RESULTS)["results"]
    return found if without_places(found.get("asked")) == without_places(asked) else None


def without_places(asked: Any) -> Any:
    """A request less the paths in it: what lies there is known by the hashes beside them."""
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
    """What the report shows beside the numbers, by the first rank."""
    with session.group.together("making pictures"):
        if session.group.is_first:
            content = save(figures(session.command, reader, pipeline, run, configs))
            with whole_or_absent(output / PICTURES) as stream:
                stream.write(content)


def figures(
    command: EvaluateCommand,
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
    """Real images for the report: those that training held out, if it did; spread over the whole set."""
    fraction = run.facts["data"]["held_out_fraction"]
    candidates = samples_of("heldout" if fraction else "all", reader.index.table["key"], fraction)
    spread = np.linspace(0, len(candidates) - 1, num=min(REALS_SHOWN, len(candidates)), dtype=np.int64)
    return candidates[spread]
