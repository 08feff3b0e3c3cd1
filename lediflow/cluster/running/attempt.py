"""One attempt of a job: how each of its ranks exited, which rank was the root cause of a failure, and what follows.

Each rank writes its own exit record; the supervisor reads them all. Ranks that were killed write none, so that srun's
messages stand in for them. From the root cause and the limits of the configuration follows the decision: the job is
done, is requeued, or has failed.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.cluster.jobs import SlurmConfig
from lediflow.disk import replace_text
from lediflow.engine.stop import StopReason
from lediflow.errors import BAD_REQUEST
from lediflow.records import read_dataclass, read_record

# Errors of a rank that lost the connection to another one, which failed first.
CONNECTION_LOST = re.compile(
    r"connection (closed|reset)|broken pipe|DistBackendError|DistNetworkError|ncclRemoteError|socket|timed out",
    re.I,
)
# Errors of the machine, not of the program.
MACHINE = re.compile(
    r"CUDA error|cudaError|uncorrectable|\bECC\b|\bXid\b|fell off the bus|NCCL WARN|ncclSystemError"
    r"|ncclUnhandledCudaError|No CUDA GPUs|device-side|Bus error|Input/output error|Stale file handle",
    re.I,
)
KILLED = 128  # exit statuses from here on are 128 + the number of a signal
CONTINUES = (StopReason.SIGNAL.exit_status, StopReason.WALL_TIME.exit_status)
_TASKS = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$")


@dataclass(frozen=True)
class Attempt:
    """One start of a job by SLURM."""

    job: str  # id in the form of scontrol: 1234, or 1234_5 for a task of an array
    restart: int = 0  # number of times SLURM has requeued the job
    array_task: int | None = None
    nodes: str = ""  # gpu[03-04]
    ranks: int = 1
    gpus: int = 0  # of all nodes together

    @property
    def label(self) -> str:
        """JOB-RESTART: prefix of the files of this attempt."""
        return f"{self.job}-{self.restart}"


def find_attempt(env: Mapping[str, str] = os.environ) -> Attempt:
    """The attempt that this process belongs to, from SLURM's environment variables."""
    task = env.get("SLURM_ARRAY_TASK_ID")
    nodes = int(env.get("SLURM_JOB_NUM_NODES", "1"))
    return Attempt(
        job=env["SLURM_JOB_ID"] if task is None else f"{env['SLURM_ARRAY_JOB_ID']}_{task}",
        restart=int(env.get("SLURM_RESTART_COUNT", "0")),
        array_task=None if task is None else int(task),
        nodes=env.get("SLURM_JOB_NODELIST", ""),
        ranks=nodes * int(env.get("SLURM_NTASKS_PER_NODE", "1")),
        gpus=nodes * len([gpu for gpu in env.get("SLURM_JOB_GPUS", "").split(",") if gpu]),
    )


@dataclass(frozen=True, kw_only=True)
class RankExit:
    """How one rank exited."""

    rank: int
    host: str
    status: int
    error: str | None = None  # in one line
    traceback: str | None = None
    time: float = 0.0  # seconds since the epoch, by the rank's own clock

    @property
    def follows_another(self) -> bool:
        """Whether the error is that of a lost connection: then another rank failed first."""
        return bool(CONNECTION_LOST.search(self.error or ""))

    @property
    def is_machine_fault(self) -> bool:
        """Whether another machine may succeed: the rank died of a signal or of a hardware error."""
        return self.status >= KILLED or bool(MACHINE.search(self.error or ""))


def write_exit(folder: Path, exit_: RankExit) -> None:
    """Write RANK.json atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / f"{exit_.rank}.json", json.dumps(dataclasses.asdict(exit_)))


def read_exits(folder: Path) -> list[RankExit]:
    """All readable exit records, sorted by rank."""
    found = [exit_ for path in folder.glob("[0-9]*.json") if (exit_ := _read_exit(path))]
    return sorted(found, key=lambda exit_: exit_.rank)


def _read_exit(path: Path) -> RankExit | None:
    try:
        return read_dataclass(RankExit, read_record(path, "it is left out"), "end")
    except ValueError:
        return None


def exit_from_srun(line: str) -> RankExit | None:
    """Parse `srun: error: node2: task 3: Killed`; None for any other line. Of several tasks the first one counts."""
    if not (match := _TASKS.match(line.strip())):
        return None
    host, tasks, outcome = match.groups()
    code = re.search(r"exit code (\d+)", outcome)
    signal = 9 if "Killed" in outcome else 11 if "egmentation" in outcome else 15
    status = int(code[1]) if code else KILLED + signal
    return RankExit(rank=int(re.split("[,-]", tasks)[0]), host=host, status=status, error=outcome)


def root_cause(exits: Sequence[RankExit], from_srun: Sequence[RankExit]) -> RankExit | None:
    """The exit that caused all others; None if no rank is known to have failed.

    Priority:
    1. a rank whose run folder was taken over by another session;
    2. the earliest rank with an error of its own;
    3. the earliest rank that exited without an error, as after saving, before srun ended the others;
    4. a rank that was killed before it could write its record, from srun's messages;
    5. the earliest rank that lost a connection;
    6. the first rank that srun mentions.
    """
    failed = sorted((exit_ for exit_ in exits if exit_.status), key=lambda exit_: exit_.time)
    own_error = [exit_ for exit_ in failed if exit_.error and not exit_.follows_another]
    without_error = [exit_ for exit_ in failed if not exit_.error]
    recorded = {exit_.rank for exit_ in exits}
    killed = [exit_ for exit_ in from_srun if exit_.rank not in recorded and exit_.status >= KILLED]
    replaced = [exit_ for exit_ in (*exits, *from_srun) if exit_.status == StopReason.LEASE_LOST.exit_status]
    return next(iter([*replaced, *own_error, *without_error, *killed, *failed, *from_srun]), None)


# --- the decision


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
    if cause is not None and cause.status == BAD_REQUEST:
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
