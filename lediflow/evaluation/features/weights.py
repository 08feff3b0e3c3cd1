"""Weights files: where they may lie, and what they are by their hash. Nothing is downloaded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from torch import Tensor

from lediflow.disk import sha256_of
from lediflow.errors import UserError

FOLDER = "LEDIFLOW_WEIGHTS"  # the variable that names a folder of weights files


def find_weights(path: str | None, name: str, what: str, how: str) -> Path:
    """The file given, or the one called `name` in the folder $LEDIFLOW_WEIGHTS; a word on how to get it otherwise."""
    folder = os.environ.get(FOLDER)
    wanted = Path(path) if path else Path(folder) / name if folder else None
    if wanted is not None and wanted.is_file():
        return wanted
    found = f"{wanted} is not a file" if wanted else f"no path was given, and ${FOLDER} is not set"
    raise UserError(
        f"{what}, but {found}. Get them once on a machine with a network: {how}. Then pass features.path=FILE, or put "
        f"the file as {name} into a folder that ${FOLDER} names"
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a file of torch.save; code in it is never run. ValueError says what else was found."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError("torch.load(weights_only=True) cannot read it") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"a {type(found).__name__} is in it, not tensors by name")
    return found


def weights_record(name: str, path: Path, preprocessing: str, dim: int) -> dict[str, str | int]:
    """What statistics of these features are bound to."""
    return {"features": name, "weights": sha256_of(path), "preprocessing": preprocessing, "dim": dim}
