"""A pipeline's jobs and SLURM: what is known of them, submitting what has to be, and the table of it all."""

from __future__ import annotations

import dataclasses
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import job_folder
from lediflow.cluster.slurm import Queued
from lediflow.cluster.submitting.pipeline import Action, Past, PipelineJob, Step
from lediflow.cluster.submitting.snapshot import take_snapshot
from lediflow.cluster.submitting.submission import submit
from lediflow.errors import UserError

LEAVING_SECONDS, LOOK_EVERY_SECONDS = 120.0, 0.5  # until a cancelled job is gone
WIDEST_REASON = 100
STATE_WIDTH = len("submitted as 12345678")


def known_past(jobs: Sequence[PipelineJob], runs: Path, queue: Sequence[Queued]) -> dict[str, Past]:
    """Of each job that was submitted before, by its name."""
    found = {}
    for job in jobs:
        folder = job_folder(job.name, runs)
        if folder.record_file.is_file():
            record = folder.read()
            queued = [item for item in queue if record.job_id in (item.job, item.job.partition("_")[0])]
            found[job.name] = Past(record, folder.attempts(), queued, Path(job.record.run).exists())
    return found


def carry_out(steps: Sequence[Step], runs: Path) -> Iterator[str]:
    """Submit what has to be; the id of each job in turn, empty for what is done."""
    is_needed = any(step.action is Action.SUBMIT for step in steps)
    snapshot = str(take_snapshot(runs)) if is_needed else ""
    ids: dict[str, str] = {}
    for step in steps:
        if step.action is Action.SUBMIT:
            ids[step.job.name] = submitted(step, runs, snapshot, ids)
        elif step.action is Action.KEEP:
            ids[step.job.name] = step.queued_as or ""
        yield ids.get(step.job.name, "")


def submitted(step: Step, runs: Path, snapshot: str, ids: Mapping[str, str]) -> str:
    """The job's id. What waits or runs of it in vain is taken out of the queue first."""
    before = step.past.record.job_ids if step.past.record else []
    record = dataclasses.replace(step.job.record, snapshot=snapshot, job_ids=before)
    after = [ids[name] for name in record.after if name in ids]
    try:
        if step.queued_as:
            take_out(step.queued_as)
        return str(submit(job_folder(record.name, runs), record, step.job.config, after).job_id)
    except UserError as error:
        raise UserError(
            f"task {step.job.task}: {error}. What is above it stays as it is; the same command goes on from here"
        ) from error


def foreseen(steps: Sequence[Step]) -> Iterator[str]:
    """As `carry_out`, without doing anything: what would be submitted has no id."""
    for step in steps:
        yield (step.queued_as or "") if step.action is Action.KEEP else ""


def take_out(job: str) -> None:
    """Cancel, and wait until SLURM has let go of it."""
    slurm.cancel(job)
    deadline = time.monotonic() + LEAVING_SECONDS
    while slurm.queue([job]):
        if time.monotonic() > deadline:
            raise UserError(f"job {job} was cancelled, but is still in the queue; try again when it has gone")
        time.sleep(LOOK_EVERY_SECONDS)


def table(steps: Sequence[Step], ids: Iterable[str]) -> Iterator[str]:
    """A line for each job as its id comes, and one for what became of it before."""
    cells = [(told_task(step.job), step.job.name) for step in steps]
    widths = [max(map(len, column)) for column in zip(("task", "job"), *cells, strict=True)]
    known: dict[str, str] = {}  # tasks with their ids, by the job's name
    yield row(widths, ("task", "job"), "state", "after")
    for step, cell, job in zip(steps, cells, ids, strict=False):
        known[step.job.name] = f"{step.job.task} {job}".strip()
        after = ", ".join(known[name] for name in step.job.record.after)
        yield row(widths, cell, told_state(step, job), after)
        if step.why_again:
            yield f"    before: {textwrap.shorten(step.why_again, WIDEST_REASON, placeholder=' ...')}"


def row(widths: Sequence[int], cells: Sequence[str], state: str, after: str) -> str:
    padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{padded}  {state:<{STATE_WIDTH}}  {after}".rstrip()


def told_state(step: Step, job: str) -> str:
    match step.action:
        case Action.DONE:
            return "done"
        case Action.KEEP:
            return f"{'queued' if step.past.is_waiting else 'running'} as {job}"
    return f"submitted as {job}" if job else "to be submitted"


def told_task(job: PipelineJob) -> str:
    return f"{job.task} ({job.record.array} tasks)" if job.record.array else job.task


def requests(steps: Sequence[Step]) -> list[str]:
    """What the jobs to be submitted ask SLURM for, once for each task."""
    new = [step.job for step in steps if step.action is Action.SUBMIT]
    return [*dict.fromkeys(f"{told_task(job)} asks for {told_resources(job.config)}" for job in new)]


def told_resources(config: SlurmConfig) -> str:
    """What a start of the job holds."""
    where = f"{config.partition} " if config.partition else ""
    gpus = f", {config.gpus_per_node} GPUs" if config.gpus_per_node else ""
    limit = f", {config.timeout_min} min" if config.timeout_min else ""
    tasks = f"{config.nodes} x {config.tasks_per_node} tasks of {config.cpus_per_task} cores"
    return f"{where}{tasks}{gpus}{limit}"
