"""Pipelines of dependent jobs: the plan (what is done, queued, or to be submitted), its execution, and its table.

`plan` is a pure function of what is requested and what is known of each job. Submitting the same pipeline again repeats
no work: it submits only what is neither done nor queued.
"""

from __future__ import annotations

import dataclasses
import enum
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.jobs import AttemptLine, JobRecord, SlurmConfig, job_folder, newest_attempt
from lediflow.cluster.running.attempt import Outcome
from lediflow.cluster.slurm import NEVER, Queued
from lediflow.cluster.submitting.submission import copy_code, submit
from lediflow.errors import UserError
from lediflow.text import aligned_row, column_widths

PENDING = "PENDING"
LOOK_EVERY_SECONDS = 0.5  # while a cancelled job leaves the queue
WIDEST_REASON = 100
STATE_WIDTH = len("submitted as 12345678")


# --- the plan


@dataclass(frozen=True)
class PipelineJob:
    """A requested job."""

    task: str
    record: JobRecord  # `after` names the jobs it depends on
    config: SlurmConfig
    is_trained: bool = False  # a training whose run folder says that it is finished

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True)
class Past:
    """What is known of earlier submissions under the same name."""

    record: JobRecord | None = None  # of the last submission
    attempts: Sequence[AttemptLine] = ()  # lines of attempts.jsonl
    queued: Sequence[Queued] = ()  # tasks of the last submission that are in the queue
    has_output: bool = False

    @property
    def submitted(self) -> str:
        return self.record.submitted if self.record else ""

    @property
    def is_waiting(self) -> bool:
        return all(entry.state == PENDING for entry in self.queued)

    def last_entries(self) -> dict[int | None, AttemptLine]:
        """Last line of the newest attempt in the last submission, by task of the array."""
        job, tasks = self.record.job_id if self.record else None, dict[int | None, list[AttemptLine]]()
        for line in self.attempts:
            if job is not None and job in (line["job"], line["job"].partition("_")[0]):
                tasks.setdefault(line["array_task"], []).append(line)
        return {task: newest_attempt(lines)[-1] for task, lines in tasks.items()}

    def outcomes(self) -> list[str]:
        """Outcome of each task of the last submission."""
        return [str(line.get("decision")) for line in self.last_entries().values()]


class Action(enum.StrEnum):
    """What is done with a job."""

    DONE = "done"
    KEEP = "queued"  # it is pending or running
    SUBMIT = "submit"


@dataclass(frozen=True)
class PlannedJob:
    """A job of the pipeline and what is done with it."""

    job: PipelineJob
    action: Action
    past: Past = field(default_factory=Past)

    @property
    def queued_as(self) -> str | None:
        """Id under which the job is in the queue. If it is submitted again, this one is cancelled first."""
        return self.past.record.job_id if self.past.record and self.past.queued else None

    @property
    def why_again(self) -> str:
        """How the last submission ended, if it failed and is submitted again."""
        unfinished = [
            line for line in self.past.last_entries().values() if line.get("decision") != Outcome.DONE
        ]
        if self.action is not Action.SUBMIT or not unfinished:
            return ""
        last = unfinished[-1]
        if last["event"] != "end":
            return "lost: it ended without a record"
        return f"{last['decision']}: {last['reason']}"


def plan(jobs: Sequence[PipelineJob], pasts: Mapping[str, Past]) -> list[PlannedJob]:
    """One step for each job, in the given order, in which every job comes after its dependencies.

    UserError if a job is in the queue with other options.
    """
    steps: dict[str, PlannedJob] = {}
    for job in jobs:
        parents = [steps[name] for name in job.record.after]
        steps[job.name] = step(job, pasts.get(job.name, Past()), parents)
    return list(steps.values())


def step(job: PipelineJob, past: Past, parents: Sequence[PlannedJob]) -> PlannedJob:
    """The step of one job; `parents` are the steps of its dependencies."""
    if all(parent.action is Action.DONE for parent in parents) and is_done(job, past, parents):
        return PlannedJob(job, Action.DONE, past)
    if past.queued and past.record and past.record.command != job.record.command:
        raise UserError(other_options(job, past.record, past.queued[0]))
    return PlannedJob(
        job, Action.KEEP if past.queued and not is_futile(past, parents) else Action.SUBMIT, past
    )


def is_done(job: PipelineJob, past: Past, parents: Sequence[PlannedJob]) -> bool:
    """Whether the job's output exists and is current.

    For a training its run folder decides. Any other command must have succeeded with the same options, and must have
    been submitted after everything it depends on.
    """
    if job.record.command[0] == "lediflow.train":
        return job.is_trained
    is_the_same = past.record is not None and past.record.command == job.record.command
    if not (past.record and is_the_same and past.submitted and past.has_output):  # SLURM may have refused it
        return False
    is_newest = all(past.submitted >= parent.past.submitted for parent in parents)
    return is_newest and past.outcomes() == [Outcome.DONE] * (past.record.array or 1)


def is_futile(past: Past, parents: Sequence[PlannedJob]) -> bool:
    """Whether the queued job can never succeed: its dependency is gone, or a task of its array has failed."""
    if (
        past.record is not None
        and past.record.array
        and {*past.outcomes()} & {Outcome.FAILED, Outcome.STOPPED}
    ):
        return True
    is_orphan = any(
        parent.action is Action.SUBMIT
        or (parent.action is Action.KEEP and parent.past.submitted > past.submitted)
        for parent in parents
    )
    return past.is_waiting and (is_orphan or any(entry.reason == NEVER for entry in past.queued))


def other_options(job: PipelineJob, there: JobRecord, entry: Queued) -> str:
    """Error message for a job that is in the queue with other options."""
    ours, theirs = {*job.record.command}, {*there.command}
    return (
        f"task {job.task}: {job.name} is in the queue as job {entry.job} with {' '.join(sorted(theirs - ours))}, but "
        f"the request has {' '.join(sorted(ours - theirs))}; end it with "
        f"`python -m lediflow.status cancel {job.name}`, or choose another folder for the pipeline"
    )


# --- its execution


def known_past(jobs: Sequence[PipelineJob], runs: Path, queue: Sequence[Queued]) -> dict[str, Past]:
    """What is known of each job that was submitted before, by its name."""
    found = {}
    for job in jobs:
        folder = job_folder(job.name, runs)
        if folder.record_file.is_file():
            record = folder.read()
            queued = [item for item in queue if record.job_id in (item.job, item.job.partition("_")[0])]
            found[job.name] = Past(record, folder.attempts(), queued, Path(job.record.run).exists())
    return found


def carry_out(
    steps: Sequence[PlannedJob], runs: Path, copy: Callable[[Path], Path] = copy_code
) -> Iterator[str]:
    """Submit what is to be submitted; yields the SLURM id of each job in turn, empty for a job that is done."""
    is_needed = any(step.action is Action.SUBMIT for step in steps)
    snapshot = str(copy(runs)) if is_needed else ""
    ids: dict[str, str] = {}
    for step in steps:
        if step.action is Action.SUBMIT:
            ids[step.job.name] = submitted(step, runs, snapshot, ids)
        elif step.action is Action.KEEP:
            ids[step.job.name] = step.queued_as or ""
        yield ids.get(step.job.name, "")


def submitted(step: PlannedJob, runs: Path, snapshot: str, ids: Mapping[str, str]) -> str:
    """Submit one job, after cancelling a futile one of the same name; returns its SLURM id."""
    before = step.past.record.job_ids if step.past.record else []
    record = dataclasses.replace(step.job.record, snapshot=snapshot, job_ids=before)
    after = [ids[name] for name in record.after if name in ids]
    try:
        if step.queued_as:
            cancel_and_wait(step.queued_as)
        return str(submit(job_folder(record.name, runs), record, step.job.config, after).job_id)
    except UserError as error:
        raise UserError(
            f"task {step.job.task}: {error}. The tasks above it are unaffected; the same command continues from here"
        ) from error


def dry_run(steps: Sequence[PlannedJob]) -> Iterator[str]:
    """As `carry_out`, but submits nothing: a job that would be submitted has an empty id."""
    for step in steps:
        yield (step.queued_as or "") if step.action is Action.KEEP else ""


def cancel_and_wait(job: str) -> None:
    """Cancel a job and wait until it has left the queue."""
    slurm.cancel(job)
    deadline = time.monotonic() + slurm.CLEARING_SECONDS
    while slurm.queue([job]):
        if time.monotonic() > deadline:
            raise UserError(
                f"job {job} was cancelled, but is still in the queue; try again when it has left it"
            )
        time.sleep(LOOK_EVERY_SECONDS)


# --- the table


def plan_table(steps: Sequence[PlannedJob], ids: Iterable[str]) -> Iterator[str]:
    """One line for each job as soon as its id is known, and one for the reason of a repeated submission."""
    cells = [(task_text(step.job), step.job.name) for step in steps]
    # The state's width is fixed, as ids are not known yet; nothing follows the last column.
    widths = [*column_widths([("task", "job"), *cells]), STATE_WIDTH, 0]
    known: dict[str, str] = {}  # name of a job -> its task and id
    yield aligned_row(("task", "job", "state", "after"), widths)
    for step, cell, job in zip(steps, cells, ids, strict=False):
        known[step.job.name] = f"{step.job.task} {job}".strip()
        after = ", ".join(known[name] for name in step.job.record.after)
        yield aligned_row((*cell, state_text(step, job), after), widths)
        if step.why_again:
            yield f"    before: {textwrap.shorten(step.why_again, WIDEST_REASON, placeholder=' ...')}"


def state_text(step: PlannedJob, job: str) -> str:
    """The cell of the table's column "state"; `job` is the SLURM id, empty if nothing was submitted."""
    match step.action:
        case Action.DONE:
            return "done"
        case Action.KEEP:
            return f"{'queued' if step.past.is_waiting else 'running'} as {job}"
    return f"submitted as {job}" if job else "to be submitted"


def task_text(job: PipelineJob) -> str:
    return f"{job.task} ({job.record.array} tasks)" if job.record.array else job.task


def requests(steps: Sequence[PlannedJob]) -> list[str]:
    """What each task that is to be submitted requests from SLURM, without repetitions."""
    new = [step.job for step in steps if step.action is Action.SUBMIT]
    return [*dict.fromkeys(f"{task_text(job)} asks for {resources_text(job.config)}" for job in new)]


def resources_text(config: SlurmConfig) -> str:
    """Resources of one attempt: `gpu 2 x 4 tasks of 8 cores, 4 GPUs, 60 min`."""
    where = f"{config.partition} " if config.partition else ""
    gpus = f", {config.gpus_per_node} GPUs" if config.gpus_per_node else ""
    limit = f", {config.timeout_min} min" if config.timeout_min else ""
    tasks = f"{config.nodes} x {config.tasks_per_node} tasks of {config.cpus_per_task} cores"
    return f"{where}{tasks}{gpus}{limit}"
