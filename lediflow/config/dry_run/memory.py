"""Memory of a rank in each ZeRO stage, and the largest micro-batch that fits beside it."""

from __future__ import annotations

from dataclasses import replace

from lediflow.config.building.micro_batch import averages_of
from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.work import Work
from lediflow.engine.ema import BEST
from lediflow.engine.memory import MARGIN, HeldMemory, halves, held
from lediflow.engine.protocol import EngineConfig
from lediflow.text import GIB, gibibytes

GPUS = (24, 40, 80)  # GiB: RTX 3090 and 4090, A100, H100 and the larger A100
STAGES = ((0, "none"), (1, "none"), (1, "cpu"), (2, "none"), (2, "cpu"), (3, "none"), (3, "cpu"))
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
    for zero, offload in STAGES:
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
        frozen=work.frozen.parameters,
        activations=micro_batch * work.model.total.kept_bytes,
    )


def largest_micro_batch(command: TrainCommand, work: Work, config: EngineConfig, capacity: int) -> int:
    """The micro-batch that engine.micro_batch=0 would find on a GPU of this capacity (bytes); 0 if none fits."""
    room = (1 - MARGIN) * capacity
    fitting = (n for n in halves(work.share) if held_by(command, work, config, n).peak <= room)
    return next(fitting, 0)
