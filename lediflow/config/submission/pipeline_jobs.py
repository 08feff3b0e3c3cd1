"""Turns a pipeline into SLURM jobs; each command is composed and checked as it would be when it starts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lediflow.cluster.jobs import JobRecord, SlurmConfig
from lediflow.cluster.submitting.pipeline import PipelineJob
from lediflow.config.building.finished import is_done
from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed
from lediflow.config.composition.explanations import explain
from lediflow.config.composition.literal import without_references
from lediflow.config.submission.pipelines import Branch, TaskRequest, branches, task_request
from lediflow.config.submission.requests import SUBMITTABLE, Request, job_record, slurm_options
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder


def pipeline_jobs(request: Request) -> list[PipelineJob]:
    """The jobs of all branches without duplicates; each comes after the jobs that it waits for."""
    jobs: dict[str, PipelineJob] = {}
    check = functools.cache(checked_job)  # tasks shared by branches are composed once
    for branch in branches(request):
        for job in jobs_of(branch, check):
            known = jobs.setdefault(job.name, job)
            if known != job:
                raise UserError(duplicate_message(job, known))
    return list(jobs.values())


def jobs_of(branch: Branch, check: Callable[[TaskRequest], PipelineJob]) -> Iterator[PipelineJob]:
    """The jobs of one branch, in the order of the pipeline's file."""
    jobs: dict[str, PipelineJob] = {}
    before: dict[str, set[str]] = {}  # tasks that a task waits for, directly or not
    for name in map(str, branch.config.tasks):
        with naming_task(branch, name):
            after = list(branch.config.tasks[name].after)
            if unknown := [other for other in after if other not in jobs]:
                raise UserError(
                    f"after: {', '.join(unknown)} is not above it; above it: {', '.join(jobs) or 'no tasks'}; name "
                    "one of these, or move the task below the one that it waits for"
                )
            before[name] = {*after}.union(*(before[other] for other in after))
            branch.config.made = {other: without_references(jobs[other].record.run) for other in before[name]}
            jobs[name] = check(
                task_request(branch, name, before[name], tuple(jobs[other].name for other in after))
            )
        yield jobs[name]


@contextlib.contextmanager
def naming_task(branch: Branch, task: str) -> Iterator[None]:
    """Context manager that adds the names of pipeline and task to an error raised inside."""
    place = f"pipeline={branch.config.name}, task {task}"
    command = str(branch.config.tasks[task].get("command"))
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        about = "submit" if "slurm" in str(error) else command
        what = explain(error, about) if command in SUBMITTABLE else str(error)
        own = f"options of the pipeline: {', '.join(branch.config.options)}; its tasks: {', '.join(branch.tasks)}"
        raise UserError(f"{place}: {what}\n{own}") from error


def checked_job(request: TaskRequest) -> PipelineJob:
    """The job of a task, composed and checked as it would be when it starts."""
    command, config = Request(request.command, [], []), slurm_config(request.slurm)
    record = job_record(command, request.overrides, [], request.runs, config)
    record.after, record.array, record.pipeline = [*request.after], request.array or None, request.pipeline
    if request.command == "prepare":
        check_source(record.command)
    is_finished = request.command == "train" and is_trained(record)
    return PipelineJob(request.task, record, config, is_finished)


def check_source(command: Sequence[str]) -> None:
    """Reject a source of lediflow.prepare that does not exist."""
    source = Path(typed(composed("prepare", command[1:])).source)
    if not source.exists():
        raise UserError(f"source={source} does not exist; give a folder or an archive of photographs")


@functools.cache
def slurm_config(overrides: tuple[str, ...]) -> SlurmConfig:
    return slurm_options(overrides).slurm


def is_trained(record: JobRecord) -> bool:
    """Whether the run folder holds this training, finished; UserError if it holds one with other options."""
    folder = RunFolder(Path(record.run))
    return folder.is_exported and is_done(folder, typed(composed("train", record.command[1:])))


def duplicate_message(job: PipelineJob, known: PipelineJob) -> str:
    """The message for two jobs of one folder with different options."""
    ours, theirs = {*option_list(job)}, {*option_list(known)}
    return (
        f"task {job.task} would make {job.record.run} twice, with {' '.join(sorted(ours - theirs))} and with "
        f"{' '.join(sorted(theirs - ours))}; submit them one at a time with folders of their own"
    )


def option_list(job: PipelineJob) -> list[str]:
    """The command and the SLURM options of a job, one string each, for comparison."""
    return [
        *job.record.command,
        *(f"slurm.{key}={value}" for key, value in dataclasses.asdict(job.config).items()),
    ]
