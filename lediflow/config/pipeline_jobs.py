"""From the words of a pipeline to its jobs: every command is composed and checked as at its start."""

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
from lediflow.config.build import typed
from lediflow.config.cli import explain
from lediflow.config.identity import is_done
from lediflow.config.literal import without_references
from lediflow.config.pipeline_tasks import Wanted, wanted
from lediflow.config.pipelines import Branch, branches
from lediflow.config.requests import COMMANDS, Request, check_ranks, composed, job_record, slurm_options
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder


def pipeline_jobs(request: Request) -> list[PipelineJob]:
    """Those of all branches, each once and below those that it waits for."""
    jobs: dict[str, PipelineJob] = {}
    check = functools.cache(checked_job)  # what branches share is composed once
    for branch in branches(request):
        for job in jobs_of(branch, check):
            known = jobs.setdefault(job.name, job)
            if known != job:
                raise UserError(twice(job, known))
    return list(jobs.values())


def jobs_of(branch: Branch, check: Callable[[Wanted], PipelineJob]) -> Iterator[PipelineJob]:
    """In the file's order."""
    jobs: dict[str, PipelineJob] = {}
    before: dict[str, set[str]] = {}  # tasks that a task waits for, directly or not
    for name in map(str, branch.config.tasks):
        with named(branch, name):
            after = list(branch.config.tasks[name].after)
            if unknown := [other for other in after if other not in jobs]:
                raise UserError(
                    f"it is after {', '.join(unknown)}, but above it are {', '.join(jobs) or 'no tasks'}"
                )
            before[name] = {*after}.union(*(before[other] for other in after))
            branch.config.made = {other: without_references(jobs[other].record.run) for other in before[name]}
            jobs[name] = check(wanted(branch, name, before[name], tuple(jobs[other].name for other in after)))
        yield jobs[name]


@contextlib.contextmanager
def named(branch: Branch, task: str) -> Iterator[None]:
    """A mistake is told with the task that it is in."""
    place = f"pipeline={branch.config.name}, task {task}"
    command = str(branch.config.tasks[task].get("command"))
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        about = "submit" if "slurm" in str(error) else command
        what = explain(error, about) if command in COMMANDS else str(error)
        own = f"options of the pipeline: {', '.join(branch.config.options)}; its tasks: {', '.join(branch.tasks)}"
        raise UserError(f"{place}: {what}\n{own}") from error


def checked_job(wanted: Wanted) -> PipelineJob:
    """Composed and checked as at its start."""
    request, config = Request(wanted.command, [], []), slurm_config(wanted.slurm)
    check_ranks(request, wanted.overrides, config)
    record = job_record(request, wanted.overrides, [], wanted.runs)
    record.after, record.array, record.pipeline = [*wanted.after], wanted.array or None, wanted.pipeline
    if wanted.command == "prepare":
        check_source(record.command)
    is_finished = wanted.command == "train" and is_trained(record)
    return PipelineJob(wanted.task, record, config, is_finished)


def check_source(command: Sequence[str]) -> None:
    source = Path(typed(composed("prepare", command[1:])).source)
    if not source.exists():
        raise UserError(f"source={source} does not exist; give a folder or an archive of photographs")


@functools.cache
def slurm_config(overrides: tuple[str, ...]) -> SlurmConfig:
    return slurm_options(overrides).slurm


def is_trained(record: JobRecord) -> bool:
    """Whether the run folder holds this training, finished; an error if it holds another one."""
    folder = RunFolder(Path(record.run))
    return folder.is_exported and is_done(folder, typed(composed("train", record.command[1:])))


def twice(job: PipelineJob, known: PipelineJob) -> str:
    ours, theirs = {*option_list(job)}, {*option_list(known)}
    return (
        f"task {job.task} would make {job.record.run} twice, with {' '.join(sorted(ours - theirs))} and with "
        f"{' '.join(sorted(theirs - ours))}; submit them one at a time with folders of their own"
    )


def option_list(job: PipelineJob) -> list[str]:
    return [
        *job.record.command,
        *(f"slurm.{key}={value}" for key, value in dataclasses.asdict(job.config).items()),
    ]
