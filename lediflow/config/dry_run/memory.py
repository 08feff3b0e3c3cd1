"""Memory of a rank in each ZeRO stage, with the largest micro-batch that fits, and disk space of the run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lediflow.config.building.micro_batch import averages_of
from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.cost import Work
from lediflow.engine.ema import BEST
from lediflow.engine.memory import BFLOAT16, FLOAT32, MARGIN, HeldMemory, halves, held, saved_bytes
from lediflow.engine.protocol import EngineConfig
from lediflow.text import GIB, Facts, gibibytes, gigabytes

FLOAT16 = BFLOAT16  # bytes of a number
GPUS = (24, 40, 80)  # GiB: RTX 3090 and 4090, A100, H100 and the larger A100
SHARDINGS = ((0, "none"), (1, "none"), (1, "cpu"), (2, "none"), (2, "cpu"), (3, "none"), (3, "cpu"))
HEADS = (
    "engine",
    "weights",
    "gradients",
    "optimizer",
    "averages",
    "buffers",
    "activations",
    "peak",
    "host",
    *(f"{gpu} GiB" for gpu in GPUS),
    "",
)


def memory_table(command: TrainCommand, work: Work) -> list[list[str]]:
    """Rows of the section "Memory": one for each ZeRO stage and offload."""
    rows = [list(HEADS)]
    for zero, offload in SHARDINGS:
        config = replace(work.engine, zero=zero, offload=offload)
        rows.append(
            [
                named(config),
                *map(gibibytes, parts(held_by(command, work, config, work.micro_batch))),
                *(str(largest_micro_batch(command, work, config, gpu * GIB)) for gpu in GPUS),
                "<- chosen" if (zero, offload) == (work.engine.zero, work.engine.offload) else "",
            ]
        )
    return rows


def named(config: EngineConfig) -> str:
    if config.zero == 0:
        return "local, zero=0"
    return f"zero={config.zero}" + (" offload=cpu" if config.offload == "cpu" else "")


def parts(held: HeldMemory) -> list[int]:
    return [
        held.weights,
        held.gradients,
        held.optimizer,
        held.averages,
        held.buffers,
        held.activations,
        held.peak,
        held.host,
    ]


def held_by(command: TrainCommand, work: Work, config: EngineConfig, micro_batch: int) -> HeldMemory:
    return held(
        work.parameters,
        config,
        work.ranks,
        averages=averages_of(command),
        keeps_best=command.train.export == BEST,
        frozen=work.frozen_parameters,
        activations=micro_batch * work.passes[0] * work.model.total.kept_bytes,
    )


def largest_micro_batch(command: TrainCommand, work: Work, config: EngineConfig, capacity: int) -> int:
    """The micro-batch that engine.micro_batch=0 would find on a GPU of this capacity (bytes); 0 if none fits."""
    room = (1 - MARGIN) * capacity
    fitting = (n for n in halves(work.share) if held_by(command, work, config, n).peak <= room)
    return next(fitting, 0)


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
    permanent = kept_permanently(saves_of(command), config.keep_every_images)
    snapshots = snapshots_of(command)
    total = (last + permanent) * one + snapshots * snapshot
    facts = [
        ("one checkpoint", f"{gigabytes(one)}, every {config.every_images:,} images"),
        (
            "kept checkpoints",
            f"{gigabytes((last + permanent) * one)}: {last} while saving, {permanent} permanently",
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


def kept_permanently(saves: list[int], every: int) -> int:
    """Number of saves that are the first at or after a multiple of `every`."""
    if every <= 0:
        return 0
    return sum(save // every > before // every for before, save in pairwise([0, *saves]))


def nearest_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
