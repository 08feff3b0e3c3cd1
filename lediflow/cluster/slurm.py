"""SLURM's own commands, with results that have names. What SLURM says against a request is passed on in its words."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lediflow.errors import UserError

SECONDS = 60  # that a busy controller may take to answer
SEPARATOR = "|"
SWEPT = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")  # of a job that we are called from: not the next job's
QUEUE_COLUMNS = ("JobArrayID", "State", "Reason", "NodeList", "Name", "RestartCnt")
KEPT = ("SLURM_CONF",)

# What SLURM says -> the option to change.
KEYS = {
    "invalid account": ("account", "partition"),
    "invalid partition": ("partition",),
    "invalid qos": ("qos",),
    "invalid feature": ("constraint",),
    "reservation": ("reservation",),
    "memory specification": ("mem_gb",),
    "time limit": ("timeout_min",),
    "generic resource": ("gpus_per_node",),
    "node count": ("nodes",),
    "node configuration": ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb"),
}


class SlurmError(UserError):
    """SLURM refused; `.said` is its own message."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


@dataclass(frozen=True)
class Queued:
    """One line of the queue."""

    job: str  # 1234, or 1234_5 for a task of an array
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it is pending: Priority, Dependency, DependencyNeverSatisfied, BeginTime, ...
    nodes: str  # gpu[03-04], empty while it is pending
    name: str
    restarts: int

    @property
    def is_waiting(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")


@dataclass(frozen=True)
class Accounted:
    """One incarnation of a job in SLURM's accounting."""

    job: str
    state: str  # without what follows it: "CANCELLED by 0" is CANCELLED
    exit_code: int
    signal: int
    seconds: int  # on nodes
    gpus: int
    nodes: str
    start: str  # ISO, local time of the cluster; "Unknown" before it
    end: str


def call(*command: str, env: Mapping[str, str] = os.environ) -> str:
    """What the command prints; SlurmError with what it says where it fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=dict(env))
    except FileNotFoundError as error:
        raise SlurmError(
            f"{command[0]} is not installed here: this machine does not belong to a SLURM cluster. Work on its login "
            "node, or run the command without SLURM (torchrun, or hydra/launcher=submitit_local)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{command[0]} did not answer in {SECONDS} s; is the SLURM controller up? try `sinfo`"
        ) from error
    if ended.returncode:
        said = said_once(ended.stderr)
        raise SlurmError(f"{command[0]}: {said}{key_to_change(said)}", said)
    return ended.stdout


def said_once(stderr: str) -> str:
    """SLURM's message, without its program's name before every line and without repetitions."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in stderr.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "failed without a message"


def key_to_change(said: str, prefix: str = "slurm.") -> str:
    """What to do about it, in words."""
    for words, keys in KEYS.items():
        if words in said.lower():
            return f". Change {' or '.join(prefix + key for key in keys)}"
    return ""


def outside_jobs(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what SLURM tells the job that we may be in: sbatch and srun take it for options."""
    return {name: value for name, value in env.items() if name in KEPT or not name.startswith(SWEPT)}


def sbatch(script: str, *options: str) -> str:
    """Submit a script; the job's id."""
    printed = call("sbatch", "--parsable", *options, script, env=outside_jobs())
    return printed.strip().partition(";")[0]


def queue(jobs: Sequence[str] = ()) -> list[Queued]:
    """The caller's jobs in the queue, or of those asked for the ones still there."""
    form = ",".join(f"{column}:{SEPARATOR}" for column in QUEUE_COLUMNS)
    printed = call("squeue", "--me", "--noheader", f"--Format={form}")
    found = [_queued(line.strip().split(SEPARATOR)) for line in printed.splitlines() if line.strip()]
    wanted = set(jobs)
    return [
        entry for entry in found if not wanted or entry.job.partition("_")[0] in wanted or entry.job in wanted
    ]


def _queued(row: list[str]) -> Queued:
    job, state, reason, nodes, name, restarts = row[: len(QUEUE_COLUMNS)]
    return Queued(job, state, reason, nodes, name, int(restarts or 0))


def accounting(jobs: Sequence[str]) -> list[Accounted]:
    """Every incarnation of these jobs, oldest first. SlurmError where the cluster keeps no accounts."""
    if not jobs:
        return []
    columns = "JobID,State,ExitCode,ElapsedRaw,AllocTRES,NodeList,Start,End"
    printed = call(
        "sacct", "--allocations", "--duplicates", "--noheader", "--parsable2", f"--format={columns}",
        f"--jobs={','.join(jobs)}", "--starttime=now-365days",
    )  # fmt: skip
    return [_accounted(line.split(SEPARATOR)) for line in printed.splitlines() if line]


def _accounted(row: list[str]) -> Accounted:
    job, state, exit_code, seconds, resources, nodes, start, end = row
    code, _, signal = exit_code.partition(":")
    gpus = re.search(r"gres/gpu=(\d+)", resources)
    return Accounted(
        job=job,
        state=state.split()[0],
        exit_code=int(code),
        signal=int(signal or 0),
        seconds=int(seconds or 0),
        gpus=int(gpus[1]) if gpus else 0,
        nodes=nodes,
        start=start,
        end=end,
    )


def hostnames(nodes: str) -> list[str]:
    """gpu[03-04] as gpu03, gpu04."""
    return call("scontrol", "show", "hostnames", nodes).split() if nodes else []


def kill_wait(default: int = 30) -> int:
    """Seconds between SLURM's TERM to a job and its KILL; SLURM's own default where it does not answer."""
    try:
        found = re.search(r"^KillWait\s*=\s*(\d+)", call("scontrol", "show", "config"), re.M)
    except SlurmError:
        return default
    return int(found[1]) if found else default


def restarts(job: str) -> int:
    """How often SLURM has put the job back into the queue, until now."""
    found = re.search(r"\bRestarts=(\d+)", call("scontrol", "show", "--oneliner", "job", job))
    return int(found[1]) if found else 0


def requeue(job: str) -> None:
    """Put a running job back into the queue; SLURM then ends what runs of it."""
    call("scontrol", "requeue", job)


def exclude(job: str, nodes: Sequence[str]) -> None:
    """Keep a pending job away from nodes."""
    call("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(nodes)}")


def cancel(job: str) -> None:
    call("scancel", job)
