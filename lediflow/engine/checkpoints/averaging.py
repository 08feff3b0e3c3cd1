"""Weights as a model loads them, out of a checkpoint: those of the last step, or averaged afterwards."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lediflow.engine.checkpoints.folder import Checkpoint
from lediflow.engine.checkpoints.snapshots import Snapshots
from lediflow.engine.ema import WIDEST
from lediflow.engine.posthoc import Profile, coefficients, profile
from lediflow.errors import UserError

State = dict[str, Tensor]


def raw(checkpoint: Checkpoint) -> State:
    """The weights of the last step."""
    return {
        key.partition("/")[2]: checkpoint.state.whole(key)
        for key in checkpoint.state.shapes
        if key.startswith(("weight/", "buffer/"))
    }


def averaged_afterwards(checkpoint: Checkpoint, snapshots: Snapshots, sigma_rel: float) -> State:
    """An average of width `sigma_rel` that ends at the checkpoint, made of those stored until then."""
    if not 0 < sigma_rel < WIDEST:
        raise UserError(f"sigma_rel {sigma_rel} must lie between 0 and {WIDEST}")
    paths = [path for path in snapshots.paths() if int(path.stem) <= checkpoint.images_seen]
    stored = [(path, role) for path in paths for role in roles_in(path)]
    if not stored:
        raise UserError(
            f"{snapshots.folder} holds no averages stored until {checkpoint.images_seen} images; train with "
            "train.ema.sigma_rels=[0.05,0.10] and train.checkpoint.snapshot_every_images above 0"
        )
    newest = int(paths[-1].stem)
    profiles = [profile_of(path, role) for path, role in stored]
    shares = coefficients(profiles, profile(sigma_rel, newest))
    return raw(checkpoint) | summed(stored, shares.tolist())


def summed(stored: list[tuple[Path, str]], shares: list[float]) -> State:
    """The stored averages, each times its share."""
    total: State = {}
    for (path, role), share in zip(stored, shares, strict=True):
        with safe_open(path, framework="pt") as file:
            for key in [key for key in file.keys() if key.startswith(f"{role}/")]:  # noqa: SIM118 - not a dict
                name = key.partition("/")[2]
                part = file.get_tensor(key).to(torch.float64) * share
                total[name] = total[name] + part if name in total else part
    return {name: tensor.float() for name, tensor in total.items()}


def roles_in(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return sorted({key.partition("/")[0] for key in file.keys()})  # noqa: SIM118 - not a dict


def profile_of(path: Path, role: str) -> Profile:
    return profile(float(role.rpartition("_")[2]), int(path.stem))
