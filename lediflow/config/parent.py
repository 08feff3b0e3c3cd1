"""The auxiliary model that flow and latent sampler build on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lediflow.config.load import load_export
from lediflow.config.schema import TrainCommand
from lediflow.errors import UserError
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.training.run_folder import RunFolder


@dataclass(frozen=True)
class Parent:
    """The frozen auxiliary model a stage builds on, pinned by the hash of its weights."""

    model: AuxiliaryModel
    path: str
    sha256: str


def load_parent(command: TrainCommand) -> Parent | None:
    """The auxiliary model of flow and latent sampler; None where a stage needs none."""
    if command.stage.name == "auxiliary" or command.prior == "gaussian":
        return None
    folder = RunFolder(Path(command.parent or "(no parent= given)"))
    how = f"python -m lediflow.train experiment={command.name} stage=auxiliary data.path={command.data.path}"
    export = folder.require_export(f"the auxiliary model that stage={command.stage.name} builds on", how)
    model = load_export(AuxiliaryModel, export, "the run of stage=auxiliary")
    check_parent(command, model, folder.root)
    return Parent(model.eval().requires_grad_(False), str(folder.root), folder.weights_hash())


def check_parent(command: TrainCommand, parent: AuxiliaryModel, folder: Path) -> None:
    """Refuse a parent whose latents are not those that the configuration describes."""
    size = command.model.image_size
    found, expected = (latent_shape(spec, size, size) for spec in (parent.spec, command.model.auxiliary))
    if found != expected:
        raise UserError(
            f"parent={folder} makes latents of {'x'.join(map(str, found))}, but model.auxiliary describes "
            f"{'x'.join(map(str, expected))}; give the model options that the parent was trained with"
        )
