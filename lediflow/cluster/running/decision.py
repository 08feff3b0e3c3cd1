"""The outcome of an attempt once its ranks have exited: the job is done, is requeued, or has failed."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lediflow.cluster.jobs import SlurmConfig
from lediflow.cluster.running.rank_exits import RankExit
from lediflow.engine.stop import StopReason

REFUSED = 2  # exit status of a request that cannot be met, as config.cli gives it
CONTINUES = (StopReason.SIGNAL.exit_status, StopReason.WALL_TIME.exit_status)


class Outcome(enum.StrEnum):
    """What happens to the job; attempts.jsonl keeps these words."""

    DONE = "done"
    REQUEUE = "requeue"
    FAILED = "failed"
    STOPPED = "stopped"  # on a user's request, with the state saved; `lediflow.status resume` continues
    TERMINATED = "terminated"  # by SLURM, which decides whether the job is restarted


@dataclass(frozen=True)
class Decision:
    """An outcome and its reason."""

    outcome: Outcome
    reason: str
    is_crash: bool = False
    excluded: tuple[str, ...] = ()  # nodes that later attempts avoid


def decide(
    status: int,
    cause: RankExit | None,
    config: SlurmConfig,
    *,
    restarts: int = 0,
    crashes: int = 0,
    is_terminated: bool = False,
) -> Decision:
    """Decide what happens to the job.

    `status` is srun's exit status, `cause` the root-cause rank, `crashes` the number of consecutive crashes before this
    attempt without a newer checkpoint, `is_terminated` whether SLURM sent TERM to the job.
    """
    if status == 0:
        return Decision(Outcome.DONE, "the work is done")
    if StopReason.STOP_FILE.exit_status in (status, cause.status if cause else None):
        return Decision(Outcome.STOPPED, StopReason.STOP_FILE.sentence)
    if cause is not None and cause.status == REFUSED:
        return Decision(Outcome.FAILED, cause.error or "the request cannot be met; see the log")
    if cause is not None and cause.status == StopReason.LEASE_LOST.exit_status:
        return Decision(Outcome.TERMINATED, StopReason.LEASE_LOST.sentence)
    if is_terminated:
        return Decision(Outcome.TERMINATED, "SLURM ended the job: cancelled, preempted, or at its time limit")
    if cause is not None and cause.status in CONTINUES:
        status = cause.status
    if status in CONTINUES:
        reason = next(reason.sentence for reason in StopReason if reason.exit_status == status)
        return within_limits(f"{reason}, the state is saved", config, restarts)
    return after_crash(status, cause, config, restarts, crashes)


def within_limits(reason: str, config: SlurmConfig, restarts: int, **more: Any) -> Decision:
    """Requeue, unless the configuration forbids it or its limit is reached."""
    if not config.requeue:
        return Decision(
            Outcome.FAILED, f"{reason}; slurm.requeue=false: continue with `lediflow.status resume`", **more
        )
    if restarts >= config.max_requeues:
        limit = f"after {restarts} restarts (slurm.max_requeues={config.max_requeues})"
        return Decision(Outcome.FAILED, f"{reason}, {limit}; continue with `lediflow.status resume`", **more)
    return Decision(Outcome.REQUEUE, reason, **more)


def after_crash(
    status: int, cause: RankExit | None, config: SlurmConfig, restarts: int, crashes: int
) -> Decision:
    """Requeue after a crash, without the node if the machine is at fault, at most `crash_retries` times in a row."""
    what = (
        f"rank {cause.rank} on {cause.host}: {cause.error}" if cause else f"srun ended with status {status}"
    )
    if crashes >= config.crash_retries:
        reason = f"{what}; it crashed {crashes + 1} times in a row without a newer checkpoint"
        return Decision(
            Outcome.FAILED, f"{reason} (slurm.crash_retries={config.crash_retries})", is_crash=True
        )
    nodes = (cause.host,) if cause and cause.is_machine_fault else ()
    return within_limits(what, config, restarts, is_crash=True, excluded=nodes)


def crashes_in_a_row(attempts: Sequence[dict[str, Any]], images: int | None) -> int:
    """Number of consecutive crashes at the end of the attempt log with the newest checkpoint at `images`."""
    count = 0
    for end in reversed([entry for entry in attempts if entry["event"] == "end"]):
        if not end.get("is_crash") or end.get("images") != images:
            break
        count += 1
    return count
