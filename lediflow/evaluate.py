"""`python -m lediflow.evaluate`: quality of generated images, and their cost (see `evaluation.modes`)."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from lediflow.config.building.models import load_export
from lediflow.config.building.pipeline import find_parent, load_decoder, load_pipeline, pipeline_hashes
from lediflow.config.composition.advice import require_export
from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import EvaluateCommand
from lediflow.config.submission import register_launchers
from lediflow.evaluation.modes import evaluate
from lediflow.evaluation.session import ModelLoader
from lediflow.models.auxiliary import AuxiliaryModel

MODELS = ModelLoader(
    pipeline=load_pipeline,
    auxiliary=lambda export: load_export(AuxiliaryModel, export, "a run of stage=auxiliary"),
    decoder=load_decoder,
    require_export=require_export,
    find_parent=find_parent,
    hashes=pipeline_hashes,
)


def main() -> None:
    run_command("evaluate", run, register_launchers, dashed={"watch": "RUN"})


def run(config: DictConfig) -> None:
    command: EvaluateCommand = typed(config)
    evaluate(command, Path(command.paths.runs), MODELS)


if __name__ == "__main__":
    main()
