"""Estimates one run on 1, 2, 4 ... machines: ranks, batches, communication and speed.

The global batch is constant, so the result of the training is. The speeds of the assumed cluster are in `Cluster` and
printed below the table; small batches are assumed to be as fast per image as large ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.cost import Work, work_of
from lediflow.config.dry_run.duration import SHARE, speed
from lediflow.config.dry_run.memory import held_by, largest_micro_batch
from lediflow.engine.memory import BFLOAT16, FLOAT32
from lediflow.errors import UserError
from lediflow.text import GIB, PLANNED, duration, gibibytes
from lediflow.training.throughput import peak_tflops


class Cluster(NamedTuple):
    """The cluster that the table assumes; speeds in bytes per second."""

    gpus_per_node: int = 4
    gpu: str = "NVIDIA A100-SXM4-40GB"
    gpu_bytes: int = 40 * GIB
    between_nodes: float = 25e9  # a node's network adapter, 200 Gbit/s
    inside_node: float = 200e9  # NVLink


ASSUMED = Cluster()
HEADS = ("nodes", "ranks", "engine", "batch", "GiB", "MB sent", "sent in", "images/s", "time")
NOTE = (
    f"assumed: {ASSUMED.gpus_per_node} x {ASSUMED.gpu} per node at {SHARE:.0%} of peak, "
    f"{ASSUMED.between_nodes / 1e9:g} GB/s between nodes, {ASSUMED.inside_node / 1e9:g} GB/s inside\n"
    "engine: the lowest ZeRO stage in which a rank's whole share fits in one micro-batch, else the configured one\n"
    "batch: micro-batch x accumulation; GiB: peak per GPU; MB sent: per rank and step\n"
    "images/s: with full and with no overlap of communication and computation; small batches are slower"
)


class Plan(NamedTuple):
    """The run on a given number of nodes; times are per step."""

    work: Work
    nodes: int
    sent_bytes: float  # per rank and step
    sending_seconds: float
    computing_seconds: float


def nodes_table(command: TrainCommand) -> list[list[str]]:
    """Rows for 1, 2, 4 ... nodes, up to command.nodes."""
    counts = sorted({2**power for power in range(command.nodes.bit_length())} | {command.nodes})
    return [list(HEADS), *(row(command, plan_of(command, nodes)) for nodes in counts)]


def plan_of(command: TrainCommand, nodes: int, cluster: Cluster = ASSUMED) -> Plan:
    """The run on so many nodes of a cluster; UserError if its ranks cannot share the global batch."""
    ranks = nodes * (command.dry_run_ranks or cluster.gpus_per_node)
    if command.train.global_batch % ranks:
        raise UserError(
            f"nodes={nodes} are {ranks} ranks, which cannot share train.global_batch={command.train.global_batch}; "
            f"choose a multiple of {ranks} (this changes the training; adapt the learning rate), or fewer nodes"
        )
    work = fitted(command, work_of(command, ranks), cluster.gpu_bytes)
    sent = sent_bytes(work)
    images_per_second = speed(work, peak_tflops(cluster.gpu, work.engine.precision) or 0.0)
    return Plan(
        work,
        nodes,
        sent,
        sent / (cluster.between_nodes if nodes > 1 else cluster.inside_node),
        command.train.global_batch / images_per_second,
    )


def fitted(command: TrainCommand, work: Work, gpu_bytes: int) -> Work:
    """The work in the lowest ZeRO stage in which a rank's share fits in one micro-batch, else in the configured one."""
    for zero in (1, 2, 3):
        engine = replace(work.engine, name="deepspeed", zero=zero, offload="none")
        if largest_micro_batch(command, work, engine, gpu_bytes) == work.share:
            return replace(work, engine=engine, micro_batch=work.share, accumulation=1)
    fitting = max(1, largest_micro_batch(command, work, work.engine, gpu_bytes))
    return replace(work, micro_batch=fitting, accumulation=work.share // fitting)


def sent_bytes(work: Work) -> float:
    """Bytes that each rank sends per step in ring collectives.

    From ZeRO stage 2 on gradients are reduced for each micro-batch; in stage 3 weights are gathered twice for each.
    """
    width = BFLOAT16 if work.engine.precision == "bfloat16" else FLOAT32
    gradients = work.accumulation if work.engine.zero >= 2 else 1
    weights = 2 * work.accumulation if work.engine.zero == 3 else 1
    return (work.ranks - 1) / work.ranks * width * work.parameters * (gradients + weights)


def row(command: TrainCommand, plan: Plan) -> list[str]:
    work, batch = plan.work, command.train.global_batch
    best = batch / max(plan.computing_seconds, plan.sending_seconds)
    worst = batch / (plan.computing_seconds + plan.sending_seconds)
    return [
        str(plan.nodes),
        str(work.ranks),
        f"zero={work.engine.zero}",
        f"{work.micro_batch} x {work.accumulation}",
        gibibytes(held_by(command, work, work.engine, work.micro_batch).peak),
        f"{plan.sent_bytes / 1e6:,.0f}",
        f"{1e3 * plan.sending_seconds:,.0f} of {1e3 * plan.computing_seconds:,.0f} ms",
        f"{best:,.0f} to {worst:,.0f}",
        f"{duration(command.train.images / best, PLANNED)} to {duration(command.train.images / worst, PLANNED)}",
    ]
