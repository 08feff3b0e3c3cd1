"""SLURM's command line tools: typed results, job ids of arrays, and reasons why a job is pending.

A refusal by SLURM becomes a SlurmError with SLURM's own message and the option to change.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lediflow.errors import UserError

SECONDS = 60  # limit of one command; a busy controller answers slowly
CLEARING_SECONDS = 120  # SLURM may take this long to clear away a job that has ended
SEPARATOR = "|"
QUEUE_COLUMNS = ("JobArrayID", "State", "Reason", "NodeList", "Name", "RestartCnt")
ELLIPSIS = "..."  # replaces the rest of a long list of tasks in squeue's output

# Environment variables of an enclosing job, which sbatch and srun would take for options; all but KEPT are removed.
SWEPT = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")
KEPT = ("SLURM_CONF",)

# Part of an error message of SLURM -> the options to change.
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

# Reason code of a pending job -> what it waits for.
# Source: "Job reason codes" in SLURM's manual, https://slurm.schedmd.com/job_reason_codes.html
REASONS = {
    "Resources": "for free nodes",
    "Priority": "for its turn: other jobs have a higher priority",
    "BeginTime": "for SLURM to restart it, within a few minutes",
    "Cleaning": "for the cleanup of its last attempt",
    "Reservation": "for its reservation to begin",
    "PartitionDown": "for its partition, which is down",
    "PartitionInactive": "for its partition, which accepts no jobs now",
    "JobArrayTaskLimit": "for other tasks of its array (slurm.array_parallelism)",
    "ReqNodeNotAvail": "for nodes that are down or reserved",
    "PartitionTimeLimit": "forever: slurm.timeout_min is above its partition's limit",
    "PartitionNodeLimit": "forever: slurm.nodes is above its partition's limit",
    "BadConstraints": "forever: no node satisfies slurm.constraint",
}
# Prefix of the many reason codes that name a limit -> whose limit it is.
LIMITS = {"Assoc": "account", "QOS": "quality of service", "Resv": "reservation"}
DEPENDENCY = "Dependency"
NEVER = "DependencyNeverSatisfied"


class SlurmError(UserError):
    """SLURM refused a request or did not answer."""


@dataclass(frozen=True)
class Queued:
    """One line of squeue."""

    job: str  # 1234, or 1234_5 for a task of an array
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # reason code of a pending job: Priority, Dependency, BeginTime, ...
    nodes: str  # gpu[03-04]; empty while it is pending
    name: str
    restarts: int

    @property
    def is_waiting(self) -> bool:
        """Whether it is pending, requeued or suspended."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")


@dataclass(frozen=True)
class Accounted:
    """One attempt of a job, as SLURM's accounting (sacct) has it."""

    job: str
    state: str  # first word only: "CANCELLED by 0" is CANCELLED
    exit_code: int
    signal: int
    seconds: int  # elapsed on the nodes
    gpus: int
    nodes: str
    start: str  # ISO, local time of the cluster; "Unknown" before the start
    end: str


def call(*command: str, env: Mapping[str, str] = os.environ) -> str:
    """Standard output of a command; SlurmError with its error message if it fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=dict(env))
    except FileNotFoundError as error:
        raise SlurmError(
            f"{command[0]} is not installed here: this machine is not part of a SLURM cluster. Use a login "
            "node, or run the command without SLURM (torchrun, or hydra/launcher=submitit_local)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{command[0]} did not answer in {SECONDS} s; is the SLURM controller up? try `sinfo`"
        ) from error
    if ended.returncode:
        message = message_of(ended.stderr)
        raise SlurmError(f"{command[0]}: {message}{option_to_change(message)}")
    return ended.stdout


def message_of(stderr: str) -> str:
    """SLURM's message without the program name in each line and without repetitions."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in stderr.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "failed without a message"


def option_to_change(message: str, prefix: str = "slurm.") -> str:
    """A sentence that names the options to change; empty for an unknown message."""
    for words, keys in KEYS.items():
        if words in message.lower():
            return f". Change {' or '.join(prefix + key for key in keys)}"
    return ""


def outside_jobs(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without the variables of an enclosing job: sbatch and srun would take them for options."""
    return {name: value for name, value in env.items() if name in KEPT or not name.startswith(SWEPT)}


def sbatch(script: str, *options: str) -> str:
    """Submit a script; returns the job id."""
    printed = call("sbatch", "--parsable", *options, script, env=outside_jobs())
    return printed.strip().partition(";")[0]


def queue(jobs: Sequence[str] = ()) -> list[Queued]:
    """The caller's jobs in the queue; with `jobs` only those with one of these ids, including tasks of their arrays."""
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
    """Every attempt of these jobs, oldest first; SlurmError if the cluster has no accounting."""
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
    """Expand a node list: gpu[03-04] becomes gpu03, gpu04."""
    return call("scontrol", "show", "hostnames", nodes).split() if nodes else []


def kill_wait(default: int = 30) -> int:
    """SLURM's KillWait: seconds from TERM to KILL when a job is ended; `default` if SLURM does not answer."""
    try:
        found = re.search(r"^KillWait\s*=\s*(\d+)", call("scontrol", "show", "config"), re.M)
    except SlurmError:
        return default
    return int(found[1]) if found else default


def restarts(job: str) -> int:
    """Number of times SLURM has requeued the job so far."""
    found = re.search(r"\bRestarts=(\d+)", call("scontrol", "show", "--oneliner", "job", job))
    return int(found[1]) if found else 0


def requeue(job: str) -> None:
    """Requeue a running job; SLURM then ends its processes."""
    call("scontrol", "requeue", job)


def exclude(job: str, nodes: Sequence[str]) -> None:
    """Exclude nodes from a pending job."""
    call("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(nodes)}")


def cancel(job: str) -> None:
    """Cancel a job, pending or running."""
    call("scancel", job)


def tasks(job: str, array: int | None) -> list[str]:
    """Ids of the tasks of an array: 1234_0, 1234_1, ..."""
    return [f"{job}_{task}" for task in range(array or 0)]


def is_of(entry: str, job: str) -> bool:
    """Whether SLURM's id `entry` (1234, 1234_5 or 1234_[0-3,7%2]) covers the job or task `job` (1234 or 1234_5)."""
    if entry == job:
        return True
    array, _, listed = entry.partition("_")
    wanted, _, task = job.partition("_")
    if array != wanted or not listed.startswith("[") or not task:
        return False
    return ELLIPSIS in listed or int(task) in expanded(listed)


def expanded(listed: str) -> set[int]:
    """Expand a list of tasks: [0-3,7%2] becomes {0, 1, 2, 3, 7}."""
    numbers: set[int] = set()
    for part in re.sub(r"[\[\]]|%\d+", "", listed).split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def why_pending(queued: Queued) -> str:
    """A sentence from the reason code of a pending job. Dependencies are the caller's: they need the jobs' names."""
    reason = reason_code(queued)
    if "held" in reason.lower():
        return f"held: `scontrol release {queued.job}` releases it"
    code = reason.partition(",")[0]
    if code in REASONS:
        return f"pending: waits {REASONS[code]}"
    for prefix, owner in LIMITS.items():
        if code.startswith(prefix):
            return f"pending: waits for a limit of its {owner} ({code})"
    return "pending" if code in ("", "None") else f"pending ({reason.replace('_', ' ')})"


def reason_code(queued: Queued) -> str:
    """The reason without parentheses and spaces, which depend on SLURM's version."""
    return queued.reason.strip("()").replace(" ", "_")
