"""What is to be done about the jobs of a pipeline: which are done, which are on their way, which are submitted.

Pure: from what is wanted and what is known of each job. A pipeline that is submitted again does nothing twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.running.decision import Verdict
from lediflow.cluster.slurm import Queued
from lediflow.errors import UserError

PENDING = "PENDING"
IN_VAIN = "DependencyNeverSatisfied"


@dataclass(frozen=True)
class PipelineJob:
    """What is wanted."""

    task: str
    record: JobRecord  # `after` names the jobs that it waits for
    config: SlurmConfig
    is_trained: bool = False  # a training run that its own folder says is finished

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True)
class Past:
    """What is known of a job of that name."""

    record: JobRecord | None = None  # of its last submission
    attempts: Sequence[Mapping[str, Any]] = ()  # lines of attempts.jsonl
    queued: Sequence[Queued] = ()  # the tasks of its last submission that SLURM still has
    has_output: bool = False

    @property
    def submitted(self) -> str:
        return self.record.submitted if self.record else ""

    @property
    def is_waiting(self) -> bool:
        return all(entry.state == PENDING for entry in self.queued)

    def last_words(self) -> dict[int | None, Mapping[str, Any]]:
        """By task of the array, the last line of its newest start in the last submission."""
        job, found = self.record.job_id if self.record else None, dict[int | None, Mapping[str, Any]]()
        for line in self.attempts:
            if job is None or job not in (line["job"], str(line["job"]).partition("_")[0]):
                continue
            task, newest = line.get("array_task"), found.get(line.get("array_task"), line)
            if line.get("restart", 0) >= newest.get(
                "restart", 0
            ):  # one that SLURM had lost may speak after it
                found[task] = line
        return found

    def verdicts(self) -> list[str]:
        return [str(line.get("decision")) for line in self.last_words().values()]


class Action(enum.StrEnum):
    DONE = "done"
    KEEP = "queued"  # it waits or runs
    SUBMIT = "submit"


@dataclass(frozen=True)
class Step:
    """What is done about a job."""

    job: PipelineJob
    action: Action
    past: Past = field(default_factory=Past)

    @property
    def queued_as(self) -> str | None:
        """The job that waits or runs. Where the task is submitted all the same, that one goes first."""
        return self.past.record.job_id if self.past.record and self.past.queued else None

    @property
    def why_again(self) -> str:
        """What became of the submission before, where it did not just wait in vain."""
        unfinished = [
            line for line in self.past.last_words().values() if line.get("decision") != Verdict.DONE
        ]
        if self.action is not Action.SUBMIT or not unfinished:
            return ""
        last = unfinished[-1]
        return (
            f"{last['decision']}: {last['reason']}"
            if last["event"] == "end"
            else "lost: it ended without a word"
        )


def plan(jobs: Sequence[PipelineJob], pasts: Mapping[str, Past]) -> list[Step]:
    """In the order of `jobs`, in which each comes after those that it waits for."""
    steps: dict[str, Step] = {}
    for job in jobs:
        parents = [steps[name] for name in job.record.after]
        steps[job.name] = step(job, pasts.get(job.name, Past()), parents)
    return list(steps.values())


def step(job: PipelineJob, past: Past, parents: Sequence[Step]) -> Step:
    """UserError where a job of this name is in the queue with other options."""
    if all(parent.action is Action.DONE for parent in parents) and is_done(job, past, parents):
        return Step(job, Action.DONE, past)
    if past.queued and past.record and past.record.command != job.record.command:
        raise UserError(other_options(job, past.record, past.queued[0]))
    return Step(job, Action.KEEP if past.queued and not is_in_vain(past, parents) else Action.SUBMIT, past)


def is_done(job: PipelineJob, past: Past, parents: Sequence[Step]) -> bool:
    """A training by what its folder holds; else the same command, ended well after what it builds on was made."""
    if job.record.command[0] == "lediflow.train":
        return job.is_trained
    is_the_same = past.record is not None and past.record.command == job.record.command
    if not (past.record and is_the_same and past.submitted and past.has_output):  # SLURM may have refused it
        return False
    is_newest = all(past.submitted >= parent.past.submitted for parent in parents)
    return is_newest and past.verdicts() == [Verdict.DONE] * (past.record.array or 1)


def is_in_vain(past: Past, parents: Sequence[Step]) -> bool:
    """Whether what is queued can never end well: it waits for a job that is gone, or a part of it has failed."""
    if (
        past.record is not None
        and past.record.array
        and {*past.verdicts()} & {Verdict.FAILED, Verdict.STOPPED}
    ):
        return True
    is_orphan = any(
        parent.action is Action.SUBMIT
        or (parent.action is Action.KEEP and parent.past.submitted > past.submitted)
        for parent in parents
    )
    return past.is_waiting and (is_orphan or any(entry.reason == IN_VAIN for entry in past.queued))


def other_options(job: PipelineJob, there: JobRecord, entry: Queued) -> str:
    ours, theirs = {*job.record.command}, {*there.command}
    return (
        f"task {job.task}: {job.name} is in the queue as job {entry.job} with {' '.join(sorted(theirs - ours))}, but "
        f"{' '.join(sorted(ours - theirs))} is asked for; end it with `python -m lediflow.status cancel {job.name}`, "
        "or give the pipeline another folder"
    )
