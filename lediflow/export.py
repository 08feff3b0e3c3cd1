"""`python -m lediflow.export`: write the models of finished runs into one folder, with a model card.

OUTPUT/
  pipeline.json, velocity/, auxiliary/, latent_sampler/    what LeDiFlowPipeline.from_pretrained reads
  README.md, samples.png                                   the model card, and images that the folder's models made
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from lediflow.claims import claim_folder
from lediflow.config.building.pipeline import STAGE_OF, is_saved, load_pipeline, pipeline_hashes
from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import ExportCommand
from lediflow.config.submission import register_launchers
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.results import read_results
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.model_card import ModelCard
from lediflow.sampling.pipeline import PIPELINE
from lediflow.text import megabytes
from lediflow.tracking.session import commit

CARD, PICTURES = "README.md", "samples.png"
ROW = 8  # images in a row of samples.png


def main() -> None:
    run_command("export", run, register_launchers)


def run(config: DictConfig) -> None:
    """Write the folder, load it again and make the card's images with it."""
    command: ExportCommand = typed(config)
    output = Path(command.output)
    if is_saved(command.run):
        raise UserError(f"run={command.run} is an exported folder already; give the run of a flow")
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    command = pipeline.resolved(command)
    rows = measured(command)
    claim_folder(output, "output", "export", lambda folder: (folder / PIPELINE).is_file())
    for name in STAGE_OF.keys() - pipeline.modules().keys():  # of an earlier export of another kind
        shutil.rmtree(output / name, ignore_errors=True)
    pipeline.save_pretrained(output, getattr(torch, command.dtype))
    images = drawn(pipeline, command)
    saved = load_pipeline(str(output), None, device=command.device, codec_path=command.codec_path)
    found = drawn(saved, command)
    words = rounding(images, found)
    with whole_or_absent(output / PICTURES) as stream:
        grid(found).save(stream, "PNG")
    card = ModelCard(
        title=command.title or Path(command.run).resolve().name,
        license=command.license,
        description=command.description,
        pictures=PICTURES,
        dtype=command.dtype,
        rounding=words,
        commit=commit(),
        rows=rows,
    )
    with whole_or_absent(output / CARD) as stream:
        stream.write(card.text(pipeline, command).encode())
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"exported: {', '.join(pipeline.modules())}, {megabytes(size)} in {output}; {words}")
    if command.license is None:
        print("no license was given (license=...), which the model card says")


def drawn(pipeline: LeDiFlowPipeline, command: ExportCommand) -> Tensor:
    """The images of the card."""
    pipeline.use(command.runtime, command.precision, images=command.count)
    return pipeline(command.count, command).images.cpu()


def grid(images: Tensor) -> Image.Image:
    """The images in rows of ROW, with their numbers."""
    rows = images.split(ROW)
    firsts = [sum(map(len, rows[:place])) for place in range(len(rows))]
    return labelled_grid(
        rows, [f"{first} to {first + len(row) - 1}" for first, row in zip(firsts, rows, strict=True)]
    )


def rounding(images: Tensor, found: Tensor) -> str:
    """How the images of the folder's models differ from those of the runs' models."""
    levels = 127.5 * (found - images)
    if not levels.any():
        return "the folder's images are equal to those of the runs"
    root = float(levels.square().mean().sqrt())
    return (
        f"the folder's images differ from those of the runs by {root:.2g} of 255 levels (root mean square), at most "
        f"{float(levels.abs().max()):.2g}"
    )


def measured(command: ExportCommand) -> list[Mapping[str, Any]]:
    """The rows of results=, those of the exported models; UserError if it has none."""
    if command.results is None:
        return []
    ours = pipeline_hashes(command.run, command.sampler)
    rows = read_results(command.results)["results"]["rows"]
    kept = [row for row in rows if ours.items() <= models_of(row).items()]
    if not kept:
        raise UserError(
            f"results={command.results} has {len(rows)} rows, none of them of the models of run={command.run} and "
            f"sampler={command.sampler}; give the results.json of an evaluation of these"
        )
    return kept


def models_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """SHA-256 of the models that a row's images were made with, by stage."""
    return dict(((row.get("record") or {}).get("images") or {}).get("models") or {})


if __name__ == "__main__":
    main()
