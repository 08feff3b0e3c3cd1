"""Initial weights from a trained model, for a run that continues its training with other data or options.

The weight averages start from these weights as well. Optimizer state, clock and sample order start fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lediflow.config.building.stage import build_trained_model
from lediflow.config.composition.schema import TrainCommand
from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.models import Model
from lediflow.models.export import WEIGHTS, describe, read_export
from lediflow.run_folder import RunFolder


@dataclass(frozen=True)
class WarmStart:
    """Initial weights, identified by their hash."""

    path: Path
    sha256: str
    weights: dict[str, Tensor]


def load_warm_start(command: TrainCommand) -> WarmStart | None:
    """Load the weights that warm_start= names; None if it is null. UserError if kind or shapes do not match."""
    if command.warm_start is None:
        return None
    folder = export_folder(command.warm_start)
    try:
        config, weights = read_export(folder)
    except ValueError as error:
        raise UserError(f"warm_start={command.warm_start}: {error}") from error
    with torch.device("meta"):
        model = build_trained_model(command)
    check_kind(command, str(config.get("kind")), model)
    check_shapes(command, weights, model)
    return WarmStart(folder, config["weights_sha256"], weights)


def export_folder(path: str) -> Path:
    """The export of a run folder; the folder itself if it has none."""
    run = RunFolder(Path(path))
    return run.export if run.is_exported else run.root


def warm_start_hash(command: TrainCommand) -> str | None:
    """SHA-256 of the weights that warm_start= names; None if it is null."""
    if command.warm_start is None:
        return None
    weights = export_folder(command.warm_start) / WEIGHTS
    if not weights.is_file():
        raise UserError(
            f"warm_start={command.warm_start} has no {weights.name}; give a finished run or an export folder"
        )
    return sha256_of(weights)


def check_kind(command: TrainCommand, found: str, model: Model) -> None:
    """Reject weights of another kind of model."""
    wanted = describe(model.spec)["kind"]
    if found != wanted:
        raise UserError(
            f"warm_start={command.warm_start} holds a model of kind {found}, but stage={command.stage.name} trains "
            f"one of kind {wanted}; give a run of that stage"
        )


def check_shapes(command: TrainCommand, weights: dict[str, Tensor], model: Model) -> None:
    """Reject weights of other shapes; the message names the first that differs."""
    theirs = {name: shape_text(tensor) for name, tensor in weights.items()}
    ours = {name: shape_text(tensor) for name, tensor in model.state_dict().items()}
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"warm_start={command.warm_start} has other weights than this model: {name} is "
                f"{theirs.get(name, 'not there')}, here {ours.get(name, 'not there')}; give the model= and prior= "
                "options that it was trained with"
            )


def shape_text(tensor: Tensor) -> str:
    """The shape for a message, e.g. 64x3x3."""
    return "x".join(map(str, tensor.shape)) or "one number"
