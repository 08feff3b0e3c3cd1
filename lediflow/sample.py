"""`python -m lediflow.sample`: new images from trained models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lediflow.config.build import typed
from lediflow.config.cli import run_command
from lediflow.config.load import load_pipeline, pipeline_hashes
from lediflow.config.schema import SampleCommand
from lediflow.data.files import write_json
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.pictures import save_pictures
from lediflow.tracking.progress import make_progress

FACTS = "samples.json"
IRRELEVANT = ("batch_size", "device", "paths")  # options that change no image


def main() -> None:
    run_command("sample", run)


def run(config: DictConfig) -> None:
    command: SampleCommand = typed(config)
    output = Path(command.output)
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    asked = {key: value for key, value in dataclasses.asdict(command).items() if key not in IRRELEVANT}
    asked["weights"] = pipeline_hashes(command.run, command.sampler)
    if asked.items() <= _facts(output).items():
        print(f"already sampled: {command.count} images in {output}")
        return
    remove_earlier(output)
    nfe = draw_samples(pipeline, command, output)
    write_json(output / FACTS, {**asked, "nfe": nfe})
    print(f"sampled: {command.count} images with {nfe} evaluations of the flow model each, in {output}")


def draw_samples(pipeline: LeDiFlowPipeline, command: SampleCommand, output: Path) -> int:
    """Write the pictures; returns the evaluations of the flow model per image, the most where batches differ."""
    progress = make_progress("sample", command.count)
    nfe = 0
    for first in range(0, command.count, command.batch_size):
        numbers = range(first, min(first + command.batch_size, command.count))
        made = pipeline(numbers, command)
        save_pictures(made.images, output, first)
        nfe = max(nfe, made.nfe)
        progress.update(numbers.stop)
    progress.close()
    return nfe


def remove_earlier(output: Path) -> None:
    """Take away the pictures of an earlier command, so that no folder mixes two sets."""
    for number in range(_facts(output).get("count", 0)):
        (output / f"{number:06d}.png").unlink(missing_ok=True)
    (output / FACTS).unlink(missing_ok=True)


def _facts(output: Path) -> dict[str, Any]:
    path = output / FACTS
    return json.loads(path.read_text()) if path.is_file() else {}


if __name__ == "__main__":
    main()
