"""Disk space of a run: checkpoints, those that are kept for ever, and snapshots of the weight averages."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

from lediflow.config.building.micro_batch import averages_of
from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.work import Work
from lediflow.engine.ema import BEST
from lediflow.engine.memory import BFLOAT16, FLOAT32, saved_bytes
from lediflow.text import Facts, gigabytes

FLOAT16 = BFLOAT16


def checkpoint_bytes(command: TrainCommand, work: Work) -> int:
    """Bytes of one checkpoint of all ranks, with the best weights, plus an export."""
    kept = averages_of(command) + (command.train.export == BEST)
    return saved_bytes(work.parameters, kept) + FLOAT32 * work.parameters


def snapshot_bytes(command: TrainCommand, work: Work) -> int:
    """Bytes of one snapshot: a float16 copy of the average of each EMA profile."""
    return FLOAT16 * len(command.train.ema.sigma_rels) * work.parameters


def disk_facts(command: TrainCommand, work: Work) -> Facts:
    """Rows of the section "Disk"."""
    config = command.train.checkpoint
    one, snapshot = checkpoint_bytes(command, work), snapshot_bytes(command, work)
    last = config.keep_last + 1  # the oldest is deleted after the newest is complete
    for_ever = kept_for_ever(saves_of(command), config.keep_every_images)
    snapshots = snapshots_of(command)
    total = (last + for_ever) * one + snapshots * snapshot
    facts = [
        ("one checkpoint", f"{gigabytes(one)}, every {config.every_images:,} images"),
        (
            "kept checkpoints",
            f"{gigabytes((last + for_ever) * one)}: {last} while saving, {for_ever} for ever",
        ),
        (
            "snapshots of averages",
            f"{gigabytes(snapshots * snapshot)}: {snapshots if snapshot else 0} in all",
        ),
        ("at most", gigabytes(total)),
    ]
    home = nearest_folder(Path(command.run))
    free = shutil.disk_usage(home).free
    short = "; NOT ENOUGH: lower train.checkpoint.keep_last, or choose another paths.runs" * (total > free)
    return [*facts, ("free", f"{gigabytes(free)} at {home}{short}")]


def snapshots_of(command: TrainCommand) -> int:
    """Number of snapshots; they are written with checkpoints, and only if there are EMA profiles."""
    config = command.train.checkpoint
    if not (command.train.ema.sigma_rels and config.snapshot_every_images):
        return 0
    stored: list[int] = []
    for save in saves_of(command):
        if not stored or save - stored[-1] >= config.snapshot_every_images:
            stored.append(save)
    return len(stored)


def saves_of(command: TrainCommand) -> list[int]:
    """Images seen at each save: the first batch at or after each multiple of every_images, and the end."""
    train, every = command.train, command.train.checkpoint.every_images
    batch = train.global_batch
    end = -(-train.images // batch) * batch
    multiples = range(every, end, every) if every > 0 else []
    return sorted({-(-place // batch) * batch for place in multiples} | {end})


def kept_for_ever(saves: list[int], every: int) -> int:
    """Number of saves that are the first at or after a multiple of `every`."""
    if every <= 0:
        return 0
    return sum(save // every > before // every for before, save in pairwise([0, *saves]))


def nearest_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
