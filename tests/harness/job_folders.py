"""Job folders and run folders as submission, supervisor and training leave them, and stand-ins for SLURM's commands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.tracking.event_log import event_line

STAND_IN = """#!/bin/sh
echo "{name} $@" >>$CALLS
[ -e {answers}/{name} ] || {{ echo "{name}: error: no answer" >&2; exit 1; }}
cat {answers}/{name}
"""


class SlurmStandIn:
    """squeue, sacct, sbatch and scancel on the path; calling it sets what a command prints."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.answers, self.log = folder / "answers", folder / "calls"
        commands = folder / "bin"
        commands.mkdir()
        self.answers.mkdir()
        for name in ("squeue", "sacct", "sbatch", "scancel"):
            (commands / name).write_text(STAND_IN.format(name=name, answers=self.answers))
            (commands / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(self.log))
        for name in ("squeue", "sacct", "scancel"):
            self(name)
        self("sbatch", "90\n")

    def __call__(self, name: str, text: str = "") -> None:
        (self.answers / name).write_text(text)

    def calls(self) -> list[str]:
        """The commands so far that would have changed something."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(("sbatch", "scancel"))]


def job(runs: Path, name: str, job_id: str | None = "7", **values: Any) -> JobFolder:
    """A submitted job."""
    folder = JobFolder(runs / "jobs" / name)
    command = values.pop("command", ["lediflow.train", "experiment=demo"])
    job_ids = [job_id] if job_id else []
    folder.write(JobRecord(name=name, command=command, run=str(runs / name), job_ids=job_ids, **values))
    folder.log.mkdir()
    return folder


def started(folder: JobFolder, job_id: str = "7", restart: int = 0) -> None:
    """The record of an attempt's start."""
    folder.note("start", job=job_id, restart=restart, array_task=None, nodes=["n1"], ranks=4, gpus=4)


def ended(
    folder: JobFolder, decision: str, reason: str = "a reason", job_id: str = "7", restart: int = 0
) -> None:
    """The record of an attempt's end."""
    folder.note(
        "end", job=job_id, restart=restart, array_task=None, decision=decision, reason=reason, images=64
    )


def trained_by_hand(runs: Path, name: str, images: int = 64, total: int = 128) -> Path:
    """The folder of a run without a job."""
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"train:\n  images: {total}\n")
    lines = [event_line("start", 0, {"ranks": 1}), event_line("train", images, {"images_per_second": 32.0})]
    (folder / "events.jsonl").write_text("".join(lines))
    return folder


def leased(folder: Path, is_given_back: bool = False, **values: Any) -> None:
    """The lease of a session in a run folder."""
    record = {
        "token": "t", "job": None, "restart": 0, "host": "n1", "machine": "another", "pid": 5, "interval": 5.0,
        "taken": 0.0, "renewed": 0.0, "is_given_back": is_given_back,
    }  # fmt: skip
    (folder / "lease.json").write_text(json.dumps(record | values))
