"""How each rank of an incarnation ended: written by the rank itself, read by the supervisor."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lediflow.engine.stop import StopReason
from lediflow.records import read_dataclass, read_record

# Of a rank that lost its peers, not of one that went first.
FOLLOWS = re.compile(
    r"connection (closed|reset)|broken pipe|DistBackendError|DistNetworkError|ncclRemoteError|socket|timed out",
    re.I,
)
# Of a machine rather than of the program.
MACHINE = re.compile(
    r"CUDA error|cudaError|uncorrectable|\bECC\b|\bXid\b|fell off the bus|NCCL WARN|ncclSystemError"
    r"|ncclUnhandledCudaError|No CUDA GPUs|device-side|Bus error|Input/output error|Stale file handle",
    re.I,
)
KILLED = 128  # and the number of a signal
_TASKS = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$")


@dataclass(frozen=True, kw_only=True)
class End:
    """One rank's end."""

    rank: int
    host: str
    status: int
    error: str | None = None  # one line
    traceback: str | None = None
    time: float = 0.0  # seconds since the epoch, by its own clock

    @property
    def follows_another(self) -> bool:
        """Whether it looks like what others see of a rank that went first."""
        return bool(FOLLOWS.search(self.error or ""))

    @property
    def is_the_machines(self) -> bool:
        """Whether another machine may do better: died by a signal, or with an error of the hardware."""
        return self.status >= KILLED or bool(MACHINE.search(self.error or ""))


def write_end(folder: Path, end: End) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{end.rank}"
    partial.write_text(json.dumps(dataclasses.asdict(end)))
    partial.replace(folder / f"{end.rank}.json")


def read_ends(folder: Path) -> list[End]:
    """By rank; one whose file cannot be read has said nothing."""
    found = [end for path in folder.glob("[0-9]*.json") if (end := _read_end(path))]
    return sorted(found, key=lambda end: end.rank)


def _read_end(path: Path) -> End | None:
    try:
        return read_dataclass(End, read_record(path, "it is left out"), "end")
    except ValueError:
        return None


def told_by_srun(line: str) -> End | None:
    """`srun: error: node2: task 3: Killed`: what became of a rank that could not tell it itself."""
    if not (match := _TASKS.match(line.strip())):
        return None
    host, tasks, fate = match.groups()
    code = re.search(r"exit code (\d+)", fate)
    status = (
        int(code[1]) if code else KILLED + (9 if "Killed" in fate else 11 if "egmentation" in fate else 15)
    )
    return End(rank=int(re.split("[,-]", tasks)[0]), host=host, status=status, error=fate)


def first_to_fail(ends: Sequence[End], told: Sequence[End]) -> End | None:
    """The rank that the others fell with.

    In this order: one that another start has replaced; the earliest that tells an error of its own; one that left as
    it should, before srun ended the rest; one that could tell nothing; the earliest that lost another; whatever srun
    speaks of first.
    """
    failed = sorted((end for end in ends if end.status), key=lambda end: end.time)
    own = [end for end in failed if end.error and not end.follows_another]
    quiet = [end for end in failed if not end.error]
    heard = {end.rank for end in ends}
    silent = [end for end in told if end.rank not in heard and end.status >= KILLED]
    replaced = [end for end in (*ends, *told) if end.status == StopReason.LEASE_LOST.exit_status]
    return next(iter([*replaced, *own, *quiet, *silent, *failed, *told]), None)
