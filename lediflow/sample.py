"""`python -m lediflow.sample`: generate images with trained models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lediflow.config.building.models import stored_path
from lediflow.config.building.pipeline import load_pipeline, pipeline_hashes
from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import SampleCommand
from lediflow.config.submission import register_launchers
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.folder import Drawing, SampleFolder
from lediflow.tracking.progress import make_progress

IRRELEVANT = ("batch_size", "device", "paths", "runtime")  # options that images do not depend on
# paths: images depend on the weights there, which are identified by their hashes
PLACES = ("run", "sampler", "output", "codec_path")


def main() -> None:
    run_command("sample", run, register_launchers)


def run(config: DictConfig) -> None:
    """Generate the images that do not exist yet."""
    command: SampleCommand = typed(config)
    folder = SampleFolder(Path(command.output))
    folder.check()
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    command = pipeline.resolved(command)
    pipeline.use(command.runtime, command.precision, images=command.count)
    asked = settings(command, pipeline.runtime.precision)
    if folder.has_all(asked, command.count):
        print(f"already sampled: {command.count} images in {folder.root}")
        return
    if replaced := folder.replaced(asked, command.count):
        print(replaced)
    with folder.drawing(asked, places(command), command.count) as drawing:
        if drawing.missing and (there := command.count - len(drawing.missing)):
            print(f"{there} of {command.count} images are in {folder.root} already; generating the others")
        draw_samples(pipeline, command, drawing)
    nfe = drawing.record["nfe"]
    print(f"sampled: {command.count} images with {nfe} evaluations of the flow model each, in {folder.root}")


def settings(command: SampleCommand, precision: str) -> dict[str, Any]:
    """The settings and weights that an image depends on, besides its number."""
    left_out = (*IRRELEVANT, *PLACES, "count")
    options = {key: value for key, value in dataclasses.asdict(command).items() if key not in left_out}
    return options | {"precision": precision, "weights": pipeline_hashes(command.run, command.sampler)}


def places(command: SampleCommand) -> dict[str, str | None]:
    """Paths of the models and of the output, for the record."""
    found = {name: getattr(command, name) for name in PLACES}
    return {name: value if value is None else stored_path(value) for name, value in found.items()}


def draw_samples(pipeline: LeDiFlowPipeline, command: SampleCommand, drawing: Drawing) -> None:
    """Generate and write the missing images in batches."""
    missing = drawing.missing
    progress = make_progress("sample", command.count)
    done = command.count - len(missing)
    for first in range(0, len(missing), command.batch_size):
        numbers = missing[first : first + command.batch_size]
        made = pipeline(numbers, command)
        drawing.add(numbers, made.images, made.nfe)
        done += len(numbers)
        progress.update(done)
    progress.close()


if __name__ == "__main__":
    main()
