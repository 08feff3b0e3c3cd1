"""`python -m lediflow.evaluate`: generated images against real ones, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

from lediflow.config.build import typed
from lediflow.config.cli import run_command
from lediflow.config.load import load_pipeline, pipeline_hashes
from lediflow.config.schema import EvaluateCommand
from lediflow.data.files import disk_errors_explained
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.split import samples_of
from lediflow.errors import UserError
from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.features import FeatureExtractor, build_features, extract, unit
from lediflow.evaluation.figures import SHOWN, prior_pictures, step_pictures
from lediflow.evaluation.metrics import evaluate_features
from lediflow.evaluation.reference import cached_features
from lediflow.evaluation.results import birth_certificate, read_results, write_results
from lediflow.evaluation.steps import measure_steps, step_configs
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.pictures import load_pictures, picture_files
from lediflow.tracking.progress import make_progress
from lediflow.training.run_folder import RunFolder

REALS_SHOWN = 64
IRRELEVANT = ("paths",)  # options that change no number; batch_size and device change the times
RESULTS, PICTURES = "results.json", "pictures.safetensors"


def main() -> None:
    run_command("evaluate", run)


def run(config: DictConfig) -> None:
    command: EvaluateCommand = typed(config)
    if (command.run is None) == (command.images is None):
        raise UserError(
            "give either run=FLOW_RUN (with sampler= and data.path=) or images=DIR with reference=DIR"
        )
    results = evaluate_run(command) if command.run else evaluate_folders(command)
    for row in results["rows"]:
        print(describe(row))


def output_folder(command: EvaluateCommand) -> Path:
    return Path(command.output or f"{command.run or command.images}/results")


def evaluate_run(command: EvaluateCommand) -> dict[str, Any]:
    """Each step count of a flow run against the shards; finished results of the same weights are reused."""
    assert command.run is not None
    if not command.data.path:
        raise UserError(
            f"run={command.run} is compared with real images; give their shards: data.path=SHARDS"
        )
    output = output_folder(command)
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    reader = ShardReader.open(command.data.path)
    asked = {
        "options": {
            key: value for key, value in dataclasses.asdict(command).items() if key not in IRRELEVANT
        },
        "weights": pipeline_hashes(command.run, command.sampler),
        "data": reader.index.fingerprint,
    }
    if found := finished_results(output, asked):
        print(f"already evaluated: {output / RESULTS}")
        return found
    extractor = build_features(dataclasses.replace(command.features, device=str(pipeline.device)))
    reference = reference_features(command, reader, pipeline, extractor)
    rows = measured_rows(command, pipeline, extractor, reference)
    results = {"asked": asked, "rows": rows, "real_mmd": halves_distance(reference)}
    with disk_errors_explained(output):
        output.mkdir(parents=True, exist_ok=True)
        save_file(figures(command, reader, pipeline), output / PICTURES)
        write_results(output / RESULTS, results, birth_certificate(seed=command.seed))
    return results


def finished_results(output: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The results that are there already, if they answer the same question."""
    if not (output / RESULTS).is_file():
        return None
    found = read_results(output / RESULTS)["results"]
    return found if found.get("asked") == asked else None


def measured_rows(
    command: EvaluateCommand, pipeline: LeDiFlowPipeline, extractor: FeatureExtractor, reference: Tensor
) -> list[dict[str, Any]]:
    total = command.count * len(command.step_counts)
    progress, done = make_progress("evaluate", total), 0
    rows = []

    def advance(images: int) -> None:
        nonlocal done
        done += images
        progress.update(done)

    for config in step_configs(command, command.step_counts):
        rows.append(
            measure_steps(
                pipeline,
                config,
                count=command.count,
                batch_size=command.batch_size,
                extractor=extractor,
                reference=reference,
                progress=advance,
            )
        )
    progress.close()
    return rows


def reference_features(
    command: EvaluateCommand, reader: ShardReader, pipeline: LeDiFlowPipeline, extractor: FeatureExtractor
) -> Float[Tensor, "n dim"]:
    """Features of the real images, decoded by the codec where the shards hold latents; computed once."""
    samples = np.arange(min(len(reader), command.reference_count or len(reader)))

    def batches() -> Iterator[Tensor]:
        progress = make_progress("features of real images", len(samples))
        for number, batch in enumerate(each_once(reader, samples, command.batch_size), start=1):
            yield pipeline.decode(batch.images.to(pipeline.device))
            progress.update(min(number * command.batch_size, len(samples)))
        progress.close()

    name = f"{extractor.name}-{reader.index.fingerprint[:16]}-{len(samples)}"
    return cached_features(
        Path(command.paths.runs) / "cache" / f"{name}.safetensors", lambda: extract(extractor, batches())
    )


def halves_distance(features: Float[Tensor, "n dim"]) -> float:
    """The metric between two halves of the real images: what no model needs to beat."""
    return cmmd(unit(features[0::2]), unit(features[1::2]), unbiased=True)


def figures(command: EvaluateCommand, reader: ShardReader, pipeline: LeDiFlowPipeline) -> dict[str, Tensor]:
    pictures = step_pictures(pipeline, step_configs(command, command.step_counts))
    chosen = shown_samples(command, reader)
    latents = next(each_once(reader, chosen, len(chosen))).images.to(pipeline.device)
    pictures["reals"] = pipeline.decode(latents).cpu()
    if pipeline.auxiliary is not None:
        pictures |= prior_pictures(
            pipeline.auxiliary,
            latents[:SHOWN],
            flow=lambda start: pipeline.integrate(start, command).x,
            decode=pipeline.decode,
            seed=command.seed,
        )
    return {name: tensor.contiguous() for name, tensor in pictures.items()}


def shown_samples(command: EvaluateCommand, reader: ShardReader) -> Int64[np.ndarray, " samples"]:
    """Real images for the report: those that training held out, if it did; spread over the whole set."""
    fraction = RunFolder(Path(command.run or "")).exported_facts()["data"]["held_out_fraction"]
    candidates = samples_of("heldout" if fraction else "all", reader.index.table["key"], fraction)
    spread = np.linspace(0, len(candidates) - 1, num=min(REALS_SHOWN, len(candidates)), dtype=np.int64)
    return candidates[spread]


def evaluate_folders(command: EvaluateCommand) -> dict[str, Any]:
    """Finished images against a folder of real ones."""
    if command.images is None or command.reference is None:
        raise UserError("images=DIR is compared with a folder of real pictures; give reference=DIR as well")
    extractor = build_features(command.features)
    reference, generated = (
        extract(extractor, load_pictures(picture_files(Path(folder)), command.batch_size))
        for folder in (command.reference, command.images)
    )
    rows = [evaluate_features(reference, generated, extractor.name)]
    results = {"asked": {"options": dataclasses.asdict(command)}, "rows": rows}
    output = output_folder(command)
    with disk_errors_explained(output):
        write_results(output / RESULTS, results, birth_certificate(seed=None))
    return results


def describe(row: dict[str, Any]) -> str:
    """A row of results in a line."""
    cost = (
        f"{row['steps']} steps ({row['nfe']} NFE, {row['ms_per_image']:.1f} ms/img): "
        if "steps" in row
        else ""
    )
    quality = f"{row['mmd_name']} {row['mmd_unbiased']:.3f}, {row['frechet_name']} {row['frechet']:.3f}"
    return f"{cost}{quality} on {row['sample_images']} images"


if __name__ == "__main__":
    main()
