"""One attempt of a job, how each of its ranks exited, and which rank was the root cause of a failure.

Each rank writes its own exit record; the supervisor reads them all. Ranks that were killed write none, so that srun's
messages stand in for them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lediflow.disk import replace_text
from lediflow.engine.stop import StopReason
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
_TASKS = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$")


@dataclass(frozen=True)
class Attempt:
    """One start of a job by SLURM."""

    job: str  # id as scontrol takes it: 1234, or 1234_5 for a task of an array
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
