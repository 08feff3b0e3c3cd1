"""Averages stored along a run, and the weights that a checkpoint yields: of the last step, or averaged afterwards.

Stored averages are one file each, `averages/<images seen, 12 digits>.safetensors`: whole tensors in float16 by role and
name, with the SHA-256 of their bytes in the metadata. They are written with checkpoints and never removed. The metadata
also name the history that they belong to: a run restarted in the same folder uses none of the previous one.
Averages of any width are made from them afterwards (ema.py has the fit).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lediflow.disk import flush, replacing
from lediflow.engine.checkpoints.folder import Checkpoint
from lediflow.engine.checkpoints.slices import SlicedState, bytes_of, write_tensors
from lediflow.engine.ema import WIDEST, Profile, coefficients, misfit, profile
from lediflow.errors import UserError

log = logging.getLogger(__name__)

SUM, HISTORY = "sha256", "history"  # keys of the metadata


class Snapshots:
    """`averages/` of a run."""

    def __init__(self, folder: Path, every_images: int = 0) -> None:
        self.folder, self.every_images = folder, every_images

    def paths(self) -> list[Path]:
        """The files of stored averages, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*.safetensors") if path.stem.isdecimal())

    def whole(self, before: int, history: str) -> list[Path]:
        """Valid files of this history before `before` images; others are named in the log and skipped."""
        paths = [path for path in self.paths() if int(path.stem) < before]
        faults = {path: find_snapshot_fault(path) or _foreign(path, history) for path in paths}
        for path, fault in faults.items():
            if fault:
                log.warning("leaving out the stored averages %s: %s", path, fault)
        return [path for path in paths if not faults[path]]

    def store(self, images_seen: int, state: SlicedState, history: str) -> None:
        """Store the power-function averages, unless some are stored nearby (also of later steps that were undone)."""
        keys = [key for key in state.shapes if key.startswith("ema_")]
        if not self.every_images or not keys or self._is_near(images_seen, history):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{images_seen:012d}.safetensors"
        averages = {key: state.whole(key).to(torch.float16) for key in keys}
        # A temporary name of the file, not of the process: however often a start is killed here, one is left at most.
        with replacing(path, temporary=f".{path.name}") as new:
            write_tensors(new, averages, {SUM: _sum_of(averages), HISTORY: history})
        flush(self.folder)

    def _is_near(self, images_seen: int, history: str) -> bool:
        own = [int(path.stem) for path in self.paths() if _foreign(path, history) is None]
        others = [place for place in own if place != images_seen]
        return any(abs(images_seen - other) < self.every_images for other in others)


def find_snapshot_fault(path: Path) -> str | None:
    """A fault of a file of stored averages as a phrase, or None."""
    try:
        with safe_open(path, framework="pt") as file:
            expected = file.metadata()[SUM]
        with path.open("rb") as raw:
            raw.seek(int.from_bytes(raw.read(8), "little"), 1)  # over the header
            found = hashlib.file_digest(raw, "sha256").hexdigest()
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None if found == expected else "it does not match its SHA-256 (altered)"


def _foreign(path: Path, history: str) -> str | None:
    """The phrase for stored averages that belong to another history, or None."""
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(HISTORY, "")
    except (OSError, SafetensorError) as error:
        return f"it cannot be read ({error})"
    return None if found == history else "another run has left it in this folder"


def roles_in(path: Path) -> list[str]:
    """The roles that a file holds, such as `ema_0.050`."""
    with safe_open(path, framework="pt") as file:
        return sorted({key.partition("/")[0] for key in file.keys()})  # noqa: SIM118 - not a dict


def tensors_in(path: Path, role: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one role with their names."""
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.startswith(f"{role}/"):
                yield key.partition("/")[2], file.get_tensor(key)


def _sum_of(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


Weights = dict[str, Tensor]


class StoredAverage(NamedTuple):
    """A stored average: its density, and a function that reads its tensors one after another."""

    profile: Profile
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]


class Averaged(NamedTuple):
    weights: Weights
    misfit: float  # distance of the density from the requested one, relative to its norm


def raw(checkpoint: Checkpoint) -> Weights:
    """The weights of the last step."""
    return dict(tensors_of(checkpoint.state, "weight")) | dict(tensors_of(checkpoint.state, "buffer"))


def averaged_afterwards(checkpoint: Checkpoint, snapshots: Snapshots, sigma_rel: float) -> Averaged:
    """An average of width `sigma_rel` that ends at the checkpoint, from its averages and those stored before.

    UserError for a width out of range, or where the run stored no averages.
    """
    if not 0 < sigma_rel < WIDEST:
        raise UserError(
            f"an average of width sigma_rel={sigma_rel:g} cannot be made: the width must be between 0 and {WIDEST:g}; "
            "give another one"
        )
    stored = stored_averages(checkpoint, snapshots)
    if not stored:
        raise UserError(
            f"an average of width sigma_rel={sigma_rel:g} is made from stored ones, and {checkpoint.path} and "
            f"{snapshots.folder} hold none; train with "
            "train.ema.sigma_rels=[0.05,0.10] and train.checkpoint.snapshot_every_images above 0"
        )
    profiles, wanted = [one.profile for one in stored], profile(sigma_rel, checkpoint.images_seen)
    shares = coefficients(profiles, wanted)
    weights = raw(checkpoint) | summed(stored, shares.tolist())
    return Averaged(weights, misfit(profiles, wanted, shares))


def stored_averages(checkpoint: Checkpoint, snapshots: Snapshots) -> list[StoredAverage]:
    """All power-function averages of the run up to the checkpoint, oldest first."""
    state, end = checkpoint.state, checkpoint.images_seen
    earlier = [
        StoredAverage(profile(width_of(role), int(path.stem)), partial(tensors_in, path, role))
        for path in snapshots.whole(before=end, history=checkpoint.progress.get(HISTORY, ""))
        for role in roles_in(path)
    ]
    own = sorted({key.partition("/")[0] for key in state.shapes if key.startswith("ema_")})
    return earlier + [
        StoredAverage(profile(width_of(role), end), partial(tensors_of, state, role)) for role in own
    ]


def summed(stored: list[StoredAverage], shares: list[float]) -> Weights:
    """The sum of the stored averages, each times its share."""
    total: Weights = {}
    for one, share in zip(stored, shares, strict=True):
        for name, tensor in one.tensors():
            part = tensor.to(torch.float64) * share
            total[name] = total[name] + part if name in total else part
    return {name: tensor.float() for name, tensor in total.items()}


def tensors_of(state: SlicedState, role: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a role with their names."""
    for key in state.shapes:
        if key.startswith(f"{role}/"):
            yield key.partition("/")[2], state.whole(key)


def width_of(role: str) -> float:
    """The sigma_rel in a role's name: 0.05 for `ema_0.050`."""
    return float(role.rpartition("_")[2])
