"""A submitted job is a folder: what was asked, the script, what became of each start, and what was said.

RUNS/jobs/NAME/        NAME: the run folder below RUNS with "." for "/"
  job.json             JobRecord
  job.sh               the sbatch script
  attempts.jsonl       one line at each start and each end of an incarnation
  log/                 JOB.log: the supervisor and the first rank; JOB-RESTART-rank3.log: where rank 3 said something
  ends/JOB-RESTART/    RANK.json: how each rank ended
RUNS/jobs/.code/HASH/  the code that jobs run: a copy made when they were submitted
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lediflow.errors import UserError
from lediflow.records import UNREADABLE, RecordError, checked_types, read_dataclass, read_record, typed

AGAIN = "remove the folder and submit again"

JOBS = "jobs"


@dataclass(kw_only=True)
class JobRecord:
    """What was asked for."""

    name: str
    command: list[str]  # module and overrides: ["lediflow.train", "experiment=demo", ...]
    run: str  # absolute folder of what the command makes
    folder: str = ""  # where it was submitted: relative paths in the command count from there
    job_ids: list[str] = field(default_factory=list)  # all SLURM ids it ever had; the last one counts
    after: list[str] = field(default_factory=list)  # names of jobs it waits for
    array: int | None = None  # tasks of an array
    snapshot: str = ""  # absolute folder of the code copy
    submitted: str = ""  # ISO, UTC, of the last submission
    pipeline: str | None = None  # that it belongs to
    slurm: dict[str, Any] = field(default_factory=dict)  # SlurmConfig

    @property
    def job_id(self) -> str | None:
        return self.job_ids[-1] if self.job_ids else None


@dataclass(frozen=True)
class JobFolder:
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

    def ends(self, incarnation: str) -> Path:
        return self.root / "ends" / incarnation

    def read(self) -> JobRecord:
        """UserError where there is no such job, or its record is torn."""
        if not self.record_file.exists():
            raise UserError(f"{self.root} is no job: it has no {self.record_file.name}")
        values = read_record(self.record_file, AGAIN)
        try:
            record: JobRecord = read_dataclass(JobRecord, values, "job")
            if not record.command:
                raise ValueError("job.command: it is empty")
        except ValueError as error:
            raise RecordError(f"{self.record_file} cannot be used ({error}); {AGAIN}") from error
        return record

    def write(self, record: JobRecord) -> None:
        """Replaces the record; readers see the old or the new one."""
        self.root.mkdir(parents=True, exist_ok=True)
        partial = self.root / f".{self.record_file.name}.{os.getpid()}"
        partial.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")
        partial.replace(self.record_file)

    def note(self, event: str, **values: Any) -> None:
        """Append a line to attempts.jsonl, in one write."""
        line = json.dumps({"time": now(), "event": event, **values}) + "\n"
        with self.attempts_file.open("ab", buffering=0) as file:
            file.write(line.encode())

    def attempts(self) -> list[dict[str, Any]]:
        """All lines, oldest first; torn ones are left out."""
        try:
            lines = self.attempts_file.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [entry for line in lines if (entry := _parsed(line))]


ATTEMPT_TYPES = {"event": str, "job": str, "restart": int, "gpus": int, "decision": str, "reason": str}
ATTEMPT_DEFAULTS: dict[str, Any] = {"restart": 0, "array_task": None, "gpus": 0, "reason": ""}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = typed(dict[str, Any], json.loads(line), "line")
        checked_types(entry, ATTEMPT_TYPES, "")
        datetime.fromisoformat(entry["time"])
        needed = {"event", "job"} | ({"decision"} if entry.get("event") == "end" else set())
        return ATTEMPT_DEFAULTS | entry if needed <= entry.keys() else None
    except (*UNREADABLE, LookupError, TypeError):
        return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def job_name(run: Path, runs: Path) -> str:
    """The run folder below RUNS with "." for "/"; elsewhere its last two parts."""
    run, runs = run.absolute(), runs.absolute()
    parts = run.relative_to(runs).parts if run.is_relative_to(runs) else run.parts[-2:]
    return ".".join(part.strip("/") for part in parts)


def job_folder(name: str, runs: Path) -> JobFolder:
    return JobFolder(runs.absolute() / JOBS / name)


def all_jobs(runs: Path) -> list[JobFolder]:
    """By name."""
    return [JobFolder(path.parent) for path in sorted((runs.absolute() / JOBS).glob("*/job.json"))]
