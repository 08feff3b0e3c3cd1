"""The folder of a submitted job, and what a job requests from SLURM.

RUNS/jobs/NAME/        NAME: path of the run folder below RUNS, with "." for "/"
  job.json             JobRecord: the request and its SLURM ids
  job.sh               the sbatch script
  attempts.jsonl       one line at the start and one at the end of each attempt
  log/                 JOB.log: supervisor and rank 0; JOB-RESTART-rank3.log: output of rank 3, if there was any
  ends/JOB-RESTART/    RANK.json: how each rank of an attempt exited
RUNS/jobs/.code/HASH/  copy of the code, made at submission; the jobs run this copy

A job is one request and may have several SLURM ids, one for each submission. An attempt is one start of a job by SLURM
(SLURM counts them as restarts). A session is one start of training in the run folder.

Records contain absolute paths; when RUNS is moved, `relocated` adapts them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lediflow.claims import named, visible_names
from lediflow.disk import replace_text
from lediflow.errors import UserError, disk_errors_explained
from lediflow.ranges import bounded
from lediflow.records import UNREADABLE, RecordError, checked_types, read_dataclass, read_record, typed

AGAIN = "remove the folder and submit again"

AttemptLine = dict[str, Any]  # one valid line of attempts.jsonl

JOBS = "jobs"  # subfolder of RUNS
CODE = ".code"  # subfolder of JOBS with the copies of the code

# Types of the values that are read from a line of attempts.jsonl, and defaults of those that may be missing.
ATTEMPT_TYPES = {"event": str, "job": str, "restart": int, "gpus": int, "decision": str, "reason": str}
ATTEMPT_DEFAULTS: dict[str, Any] = {"restart": 0, "array_task": None, "gpus": 0, "reason": ""}


@dataclass(kw_only=True)
class SlurmConfig:
    """Resources and policy of one job, by the names of submitit and sbatch.

    Empty strings and zeros leave the choice to the cluster.
    """

    partition: str = ""  # queue; `sinfo` lists them
    account: str = ""  # account that is charged
    qos: str = ""  # quality of service, where the site has several
    constraint: str = ""  # features a node must have, e.g. a100
    reservation: str = ""  # name of a reservation
    exclude: str = ""  # nodes that are never used, e.g. gpu[07,12]
    nodes: int = bounded(1, at_least=1)  # number of machines
    tasks_per_node: int = bounded(1, at_least=1)  # ranks on each node, usually one per GPU
    gpus_per_node: int = bounded(0, at_least=0)  # equal to tasks_per_node for training on GPUs; 0: no GPUs
    cpus_per_task: int = bounded(1, at_least=1)  # cores of each rank, shared with its data workers
    mem_gb: float = bounded(0.0, at_least=0)  # memory of each node; 0: the cluster's default
    timeout_min: int = bounded(0, at_least=0)  # limit of one attempt in minutes; 0: the partition's
    signal_delay_s: int = bounded(120, at_least=0)  # from USR2, on which ranks save, to the limit
    array_parallelism: int = bounded(0, at_least=0)  # tasks of an array that run at the same time; 0: all
    requeue: bool = True  # let SLURM restart the job after preemption and node failures
    max_requeues: int = bounded(100, at_least=0)  # attempts after the first, for any reason
    crash_retries: int = bounded(3, at_least=0)  # attempts after crashes without a newer checkpoint
    interface: str = ""  # network between nodes, e.g. ib0; empty: NCCL and gloo choose
    setup: list[str] = field(default_factory=list)  # shell lines before the ranks start: modules, proxies
    srun_args: list[str] = field(default_factory=list)  # further arguments of srun, e.g. --cpu-bind=verbose
    environment: dict[str, str] = field(default_factory=dict)  # environment variables of every rank
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # of sbatch: {mail-type: END}


@dataclass(kw_only=True)
class JobRecord:
    """The request: content of job.json."""

    name: str
    command: list[str]  # module and overrides: ["lediflow.train", "experiment=demo", ...]
    run: str  # absolute path of the folder that the command writes
    folder: str = ""  # working directory of the command, for its relative paths
    job_ids: list[str] = field(default_factory=list)  # SLURM ids of all submissions; the last one is current
    after: list[str] = field(default_factory=list)  # names of the jobs it depends on
    array: int | None = None  # number of tasks of an array
    snapshot: str = ""  # absolute path of the code copy
    submitted: str = ""  # time of the last submission: ISO, UTC
    pipeline: str | None = None  # pipeline that it belongs to
    slurm: dict[str, Any] = field(default_factory=dict)  # values of SlurmConfig

    @property
    def job_id(self) -> str | None:
        """SLURM id of the last submission."""
        return self.job_ids[-1] if self.job_ids else None


@dataclass(frozen=True)
class JobFolder:
    """Paths, record and attempt log of one job."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def record_file(self) -> Path:
        return self.root / "job.json"

    @property
    def script(self) -> Path:
        return self.root / "job.sh"

    @property
    def attempts_file(self) -> Path:
        return self.root / "attempts.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def rank_exits(self, attempt: str) -> Path:
        """Folder of the ranks' exit records of the attempt with this label, JOB-RESTART."""
        return self.root / "ends" / attempt

    def read(self) -> JobRecord:
        """The record, with its paths as they are now if RUNS was moved since the submission.

        UserError if there is no such job or its record is damaged.
        """
        if not self.record_file.exists():
            raise UserError(f"{self.root} is not a job folder: it has no {self.record_file.name}")
        values = read_record(self.record_file, AGAIN)
        try:
            record: JobRecord = read_dataclass(JobRecord, values, "job")
            if not record.command:
                raise ValueError("job.command: it is empty")
        except ValueError as error:
            raise RecordError(f"{self.record_file} cannot be used ({error}); {AGAIN}") from error
        return relocated(record, self.root.absolute().parent.parent)

    def write(self, record: JobRecord) -> None:
        """Replace the record atomically: readers see either the old or the new one.

        UserError if the folder cannot be written, or holds visible files but no record.
        """
        with disk_errors_explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            if not self.record_file.exists() and (others := visible_names(self.root)):
                raise UserError(
                    f"the job folder {self.root} is not empty (found {named(others)}), and without "
                    f"{self.record_file.name} it belongs to no job; choose another run folder, or empty this one"
                )
            replace_text(self.record_file, json.dumps(dataclasses.asdict(record), indent=2) + "\n")

    def note(self, event: str, **values: Any) -> None:
        """Append a line to attempts.jsonl, in one write."""
        line = json.dumps({"time": now(), "event": event, **values}) + "\n"
        with self.attempts_file.open("ab", buffering=0) as file:
            file.write(line.encode())

    def attempts(self, job: str | None = None) -> list[AttemptLine]:
        """All valid lines of attempts.jsonl, oldest first; damaged lines are skipped.

        With `job`, only those under this SLURM id: of one submission, and in an array (1234_5) of one task.
        """
        try:
            lines = self.attempts_file.read_text(errors="replace").splitlines()
        except OSError:
            return []
        entries = [entry for line in lines if (entry := _parsed(line))]
        return [entry for entry in entries if job is None or entry["job"] == job]


def newest_attempt(lines: Sequence[AttemptLine]) -> list[AttemptLine]:
    """The lines of the newest attempt among those under one SLURM id.

    A superseded attempt may still write its end record later; it is left out.
    """
    newest = max((line["restart"] for line in lines), default=0)
    return [line for line in lines if line["restart"] == newest]


def newest_end(lines: Sequence[AttemptLine]) -> AttemptLine | None:
    """End record of the newest attempt among the lines under one SLURM id; None while it has none."""
    ends = [line for line in newest_attempt(lines) if line["event"] == "end"]
    return ends[-1] if ends else None


def _parsed(line: str) -> AttemptLine | None:
    try:
        entry = typed(dict[str, Any], json.loads(line), "line")
        checked_types(entry, ATTEMPT_TYPES, "")
        datetime.fromisoformat(entry["time"])
        needed = {"event", "job"} | ({"decision"} if entry.get("event") == "end" else set())
        return ATTEMPT_DEFAULTS | entry if needed <= entry.keys() else None
    except (*UNREADABLE, LookupError, TypeError):
        return None


def relocated(record: JobRecord, runs: Path) -> JobRecord:
    """The record after RUNS was moved to `runs`; unchanged if it was not, or if its old place is unknown.

    The code copy lies in RUNS, so that its path says where RUNS was at the submission.
    """
    snapshot = Path(record.snapshot)
    if snapshot.parts[-3:-1] != (JOBS, CODE) or snapshot.parents[2] == runs:
        return record
    old = snapshot.parents[2]
    module, *options = record.command
    return dataclasses.replace(
        record,
        command=[module, *(_relocated_option(option, record.folder, old, runs) for option in options)],
        run=_relocated_path(record.run, old, runs),
        folder=_relocated_path(record.folder, old, runs),
        snapshot=_relocated_path(record.snapshot, old, runs),
    )


def _relocated_path(path: str, old: Path, new: Path) -> str:
    return str(new / Path(path).relative_to(old)) if Path(path).is_relative_to(old) else path


def _relocated_option(option: str, folder: str, old: Path, new: Path) -> str:
    """KEY=VALUE with the absolute paths below `old` moved; a VALUE below it, relative to `folder`, becomes absolute."""
    key, _, value = option.partition("=")
    path = Path(os.path.normpath(Path(folder, value)))
    is_below = old in path.parents or (path == old and key == "paths.runs")
    if is_below and not Path(value).is_absolute() and not Path(folder).is_relative_to(old):
        return f"{key}={_relocated_path(str(path), old, new)}"
    below = rf"(?<=[=\"'\[,]){re.escape(str(old))}(?=[/\"'\],]|$)"
    return re.sub(below, lambda _: str(new), option)


def now() -> str:
    """The present time as records keep it: ISO, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def job_name(run: Path, runs: Path) -> str:
    """Path of the run folder below RUNS with "." for "/"; elsewhere its last two parts."""
    run, runs = run.absolute(), runs.absolute()
    parts = run.relative_to(runs).parts if run.is_relative_to(runs) else run.parts[-2:]
    return ".".join(part.strip("/") for part in parts)


def job_folder(name: str, runs: Path) -> JobFolder:
    """The folder of the job with this name; it need not exist."""
    return JobFolder(runs.absolute() / JOBS / name)


def all_jobs(runs: Path) -> list[JobFolder]:
    """Folders of all jobs below RUNS, sorted by name."""
    return [JobFolder(path.parent) for path in sorted((runs.absolute() / JOBS).glob("*/job.json"))]
