"""`mode=metrics`: a run at several numbers of solver steps, or a folder of pictures, against real images.

Finished rows are reused and interrupted work continues. Files in the output folder of a run:

results.json          every row, the MMD between photographs, for runs on latents the codec's floor
table.md              what the run reaches and at what cost, and every row
pareto.png            quality against milliseconds and against evaluations; also pareto.svg
pictures.safetensors  tensors for the report

A folder of pictures (images=, reference=) needs no model and has one row, in results.json.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from safetensors.torch import save
from torch import Tensor

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.order import samples_of
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.config import EvaluateConfig, request
from lediflow.evaluation.images import FolderImages
from lediflow.evaluation.metrics import check_counts, measure, table_record
from lediflow.evaluation.modes.rows import RowMaker, Run, is_timed_by
from lediflow.evaluation.pictures import SHOWN, prior_pictures, step_pictures
from lediflow.evaluation.references import Reference, open_shards, reference_features, references
from lediflow.evaluation.results import RESULTS, read_results
from lediflow.evaluation.session import Session
from lediflow.evaluation.views import VIEWS, describe, print_rows, write_views
from lediflow.flow.solvers import ignores_steps
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.folder import check_recorded

REALS_SHOWN = 64
PICTURES = "pictures.safetensors"
# options that are paths; their contents are identified by hashes (`path`: shards, and the extractor's weights)
PLACES = ("run", "sampler", "path", "photographs", "statistics", "codec_path")


def evaluate_run(session: Session) -> dict[str, Any]:
    """Measure a flow run at each number of steps; results of the same weights and options are reused."""
    command = session.command
    assert command.run is not None
    run = Run(Path(command.run).name, command.run, command.sampler)
    output = Path(command.output or f"{command.run}/results")
    pipeline = session.pipeline(run.flow, run.sampler)
    command = pipeline.resolved(command)
    session = dataclasses.replace(session, command=command)
    reader = open_shards(session, command.data.path)
    photographs = command.data.photographs
    asked = request(command) | {
        "weights": session.models.hashes(run.flow, run.sampler),
        "data": reader.index.fingerprint,
        "data_of_photographs": open_shards(session, photographs).index.fingerprint if photographs else None,
        "extractor": session.extractor.record,
        **table_record(),
    }
    if found := session.group.broadcast(finished_results(output, asked, pipeline)):
        session.say(f"already evaluated: {output / RESULTS}")
        print_rows(session, found)
        return found
    session.claim(output)
    configs = step_configs(session)
    maker = RowMaker.build(session, run, pipeline, references(session, pipeline, run.facts), output)
    results = {"asked": asked, "rows": maker.rows(configs), **maker.facts()}
    session.withdraw(output)
    write_pictures(session, output, pipeline, run, configs, reader)
    floor = results.get("codec_floor")
    write_views(session, output, results["rows"], real_mmd=results["real_mmd"], floor=floor)
    session.write(output, results, command.seed)
    print_rows(session, results)
    return results


def finished_results(
    output: Path, asked: dict[str, Any], pipeline: LeDiFlowPipeline
) -> dict[str, Any] | None:
    """Existing results, if their figures are there and weights, options and runtime are the same; else None."""
    if not all((output / name).is_file() for name in (RESULTS, PICTURES, *VIEWS)):
        return None
    found = read_results(output / RESULTS)["results"]
    is_same = without_places(recorded_request(found)) == without_places(asked)
    return found if is_same and all(is_timed_by(row, pipeline) for row in found["rows"]) else None


def recorded_request(results: dict[str, Any]) -> Any:
    """What results were asked for; before `precision` was an option, all images were made in float32."""
    asked = results.get("asked")
    if not isinstance(asked, dict) or not isinstance(options := asked.get("options"), dict):
        return asked
    return asked | {"options": {"precision": "float32"} | options}


def without_places(asked: Any) -> Any:
    """A request without its paths, whose contents are identified by hashes."""
    if not isinstance(asked, dict):
        return asked
    return {key: without_places(value) for key, value in asked.items() if key not in PLACES}


def step_configs(session: Session) -> list[SamplingConfig]:
    """The settings of the rows. An adaptive solver has one, next to the prior alone, since it ignores its steps."""
    command = session.command
    counts = command.step_counts
    if ignores_steps(command.solver) and len([steps for steps in counts if steps]) > 1:
        counts = [steps for steps in counts if not steps] + [max(counts)]
        session.note(
            f"solver={command.solver} ignores step_counts={command.step_counts}: it is measured once"
        )
    return [dataclasses.replace(command, steps=steps) for steps in counts]


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


def evaluate_folders(session: Session) -> dict[str, Any]:
    """Measure one row; the features of both folders are cached under a hash of their pictures."""
    command = session.command
    assert command.images is not None and command.reference is not None
    output = Path(command.output or f"{command.images}/results")
    with session.group.together("looking at the pictures"):
        check_recorded(Path(command.reference))
        check_recorded(Path(command.images))
        real = FolderImages(Path(command.reference), "reference")
        generated = FolderImages(Path(command.images), "images")
    for note in (*real.notes(), *generated.notes()):
        session.note(note)
    check_counts(len(real), len(generated))
    check_sizes(real, generated)
    if real.is_grey() != generated.is_grey():
        kinds = ("grey", "coloured") if generated.is_grey() else ("coloured", "grey")
        session.note(
            f"images={generated.folder} are {kinds[0]}, reference={real.folder} {kinds[1]}: this difference is part of "
            "every distance"
        )
    session.claim(output)
    photographs = reference_features(session, real, "real pictures", command.statistics)
    reference = Reference("photographs", photographs, np.arange(len(real)), None)
    features = reference_features(session, generated, "generated pictures")
    measured = measure(
        reference, features, session.extractor.name, session.group, session.device, command.metrics
    )
    results = {
        "asked": {"options": dataclasses.asdict(command)},
        "pictures": {"images": generated.account(), "reference": real.account()},
        "rows": [measured.row],
    }
    session.write(output, results, seed=None)
    session.say(describe(measured.row))
    return results


def check_sizes(real: FolderImages, generated: FolderImages) -> None:
    """UserError for folders of different sizes: resizing one of them would change its features."""
    if real.size != generated.size:
        raise UserError(
            f"{generated.folder} holds pictures of {generated.size} x {generated.size}, {real.folder} of {real.size} x "
            f"{real.size}: bring both to one size with the same method before they are compared"
        )
