"""What becomes of a job whose ranks have ended: it is done, goes back into the queue, or has failed for a reason."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.running.ends import End
from lediflow.engine.stop import StopReason

REFUSED = 2  # the request cannot be met: config.cli
GOES_ON = (StopReason.SIGNAL.exit_status, StopReason.WALL_TIME.exit_status)


class Verdict(enum.StrEnum):
    DONE = "done"
    REQUEUE = "requeue"
    FAILED = "failed"
    STOPPED = "stopped"  # by a person; `lediflow.status resume` goes on
    TERMINATED = "terminated"  # by SLURM, which also knows whether it starts the job again


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reason: str
    is_crash: bool = False
    excluded: tuple[str, ...] = ()


def decide(
    status: int,
    culprit: End | None,
    config: SlurmConfig,
    *,
    restarts: int = 0,
    crashes: int = 0,
    is_terminated: bool = False,
) -> Decision:
    """`status` is srun's; `crashes` those in a row before this one that left no newer checkpoint."""
    if status == 0:
        return Decision(Verdict.DONE, "the work is done")
    if StopReason.STOP_FILE.exit_status in (status, culprit.status if culprit else None):
        return Decision(Verdict.STOPPED, StopReason.STOP_FILE.sentence)
    if culprit is not None and culprit.status == REFUSED:
        return Decision(Verdict.FAILED, culprit.error or "the request cannot be met; see the log")
    if culprit is not None and culprit.status == StopReason.LEASE_LOST.exit_status:
        return Decision(Verdict.TERMINATED, StopReason.LEASE_LOST.sentence)
    if is_terminated:
        return Decision(Verdict.TERMINATED, "SLURM ended the job: cancelled, preempted, or at its time limit")
    if culprit is not None and culprit.status in GOES_ON:
        status = culprit.status
    if status in GOES_ON:
        reason = next(reason.sentence for reason in StopReason if reason.exit_status == status)
        return within_limits(f"{reason}, the state is saved", config, restarts)
    return after_crash(status, culprit, config, restarts, crashes)


def within_limits(reason: str, config: SlurmConfig, restarts: int, **more: Any) -> Decision:
    """Requeue, unless that is forbidden or has been done too often."""
    if not config.requeue:
        return Decision(
            Verdict.FAILED, f"{reason}; slurm.requeue=false: go on with `lediflow.status resume`", **more
        )
    if restarts >= config.max_requeues:
        often = f"after {restarts} starts more than the first (slurm.max_requeues={config.max_requeues})"
        return Decision(Verdict.FAILED, f"{reason}, {often}; go on with `lediflow.status resume`", **more)
    return Decision(Verdict.REQUEUE, reason, **more)


def after_crash(
    status: int, culprit: End | None, config: SlurmConfig, restarts: int, crashes: int
) -> Decision:
    what = (
        f"rank {culprit.rank} on {culprit.host}: {culprit.error}"
        if culprit
        else f"srun ended with status {status}"
    )
    if crashes >= config.crash_retries:
        reason = f"{what}; it crashed {crashes + 1} times in a row without a newer checkpoint"
        return Decision(
            Verdict.FAILED, f"{reason} (slurm.crash_retries={config.crash_retries})", is_crash=True
        )
    nodes = (culprit.host,) if culprit and culprit.is_the_machines else ()
    return within_limits(what, config, restarts, is_crash=True, excluded=nodes)


def crashes_in_a_row(attempts: Sequence[dict[str, Any]], images: int | None) -> int:
    """Ends by a crash, newest first, that left no newer checkpoint than was there before them."""
    count = 0
    for end in reversed([entry for entry in attempts if entry["event"] == "end"]):
        if not end.get("is_crash") or end.get("images") != images:
            break
        count += 1
    return count
