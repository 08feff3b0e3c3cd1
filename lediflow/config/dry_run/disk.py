"""What a run writes: full states, those that are kept for ever, and snapshots of averages."""

from __future__ import annotations

import shutil
from pathlib import Path

from lediflow.config.dry_run.text import Facts, gigabytes
from lediflow.config.dry_run.work import Work
from lediflow.config.micro_batch import averages_of
from lediflow.config.schema import TrainCommand
from lediflow.engine.memory import BFLOAT16, FLOAT32, saved_bytes

FLOAT16 = BFLOAT16


def checkpoint_bytes(command: TrainCommand, work: Work) -> int:
    """The full state of all ranks, and the averaged weights once more as an export needs them."""
    return saved_bytes(work.parameters, averages_of(command)) + FLOAT32 * work.parameters


def snapshot_bytes(command: TrainCommand, work: Work) -> int:
    """One float16 copy of each profile's average."""
    return FLOAT16 * len(command.train.ema.sigma_rels) * work.parameters


def disk_facts(command: TrainCommand, work: Work) -> Facts:
    train, config = command.train, command.train.checkpoint
    one, snapshot = checkpoint_bytes(command, work), snapshot_bytes(command, work)
    last = config.keep_last + 1  # the newest is whole before the oldest goes
    for_ever = kept_for_ever(train.images, config.keep_every_images)
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
    """They are written with checkpoints, and only where there are profiles."""
    config = command.train.checkpoint
    if not (command.train.ema.sigma_rels and config.snapshot_every_images):
        return 0
    return kept_for_ever(command.train.images, max(config.every_images, config.snapshot_every_images))


def kept_for_ever(images: int, every: int) -> int:
    return images // every if every > 0 else 0


def nearest_folder(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
