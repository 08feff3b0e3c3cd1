"""Weights as a model loads them, out of a checkpoint: those of the last step, or averaged afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lediflow.engine.checkpoints.folder import Checkpoint
from lediflow.engine.checkpoints.slices import SlicedState
from lediflow.engine.checkpoints.snapshots import HISTORY, Snapshots, roles_in, tensors_in
from lediflow.engine.ema import WIDEST
from lediflow.engine.posthoc import Profile, coefficients, misfit, profile
from lediflow.errors import UserError

State = dict[str, Tensor]


class Stored(NamedTuple):
    """One average that was kept: its density, and what reads its tensors one after another."""

    profile: Profile
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]


class Averaged(NamedTuple):
    weights: State
    misfit: float  # how far the density is from the one asked for, as a share of its norm


def raw(checkpoint: Checkpoint) -> State:
    """The weights of the last step."""
    return dict(tensors_of(checkpoint.state, "weight")) | dict(tensors_of(checkpoint.state, "buffer"))


def averaged_afterwards(checkpoint: Checkpoint, snapshots: Snapshots, sigma_rel: float) -> Averaged:
    """An average of width `sigma_rel` that ends at the checkpoint, made of its own and of those stored before."""
    if not 0 < sigma_rel < WIDEST:
        raise UserError(f"sigma_rel {sigma_rel} must lie between 0 and {WIDEST}")
    stored = stored_averages(checkpoint, snapshots)
    if not stored:
        raise UserError(
            f"{checkpoint.path} and {snapshots.folder} hold no averages to make others from; train with "
            "train.ema.sigma_rels=[0.05,0.10] and train.checkpoint.snapshot_every_images above 0"
        )
    profiles, wanted = [one.profile for one in stored], profile(sigma_rel, checkpoint.images_seen)
    shares = coefficients(profiles, wanted)
    weights = raw(checkpoint) | summed(stored, shares.tolist())
    return Averaged(weights, misfit(profiles, wanted, shares))


def stored_averages(checkpoint: Checkpoint, snapshots: Snapshots) -> list[Stored]:
    """Every power-function average known of the run until the checkpoint, oldest first."""
    state, end = checkpoint.state, checkpoint.images_seen
    earlier = [
        Stored(profile(width_of(role), int(path.stem)), partial(tensors_in, path, role))
        for path in snapshots.whole(before=end, history=checkpoint.progress.get(HISTORY, ""))
        for role in roles_in(path)
    ]
    own = sorted({key.partition("/")[0] for key in state.shapes if key.startswith("ema_")})
    return earlier + [Stored(profile(width_of(role), end), partial(tensors_of, state, role)) for role in own]


def summed(stored: list[Stored], shares: list[float]) -> State:
    """The stored averages, each times its share."""
    total: State = {}
    for one, share in zip(stored, shares, strict=True):
        for name, tensor in one.tensors():
            part = tensor.to(torch.float64) * share
            total[name] = total[name] + part if name in total else part
    return {name: tensor.float() for name, tensor in total.items()}


def tensors_of(state: SlicedState, role: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a role with its name."""
    for key in state.shapes:
        if key.startswith(f"{role}/"):
            yield key.partition("/")[2], state.whole(key)


def width_of(role: str) -> float:
    """The sigma_rel of `ema_0.050`."""
    return float(role.rpartition("_")[2])
