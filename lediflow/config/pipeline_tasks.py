"""From the tasks of a pipeline to jobs: folders are named, commands composed and checked as at their start."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.pipeline import PipelineJob
from lediflow.config.build import typed
from lediflow.config.cli import explain
from lediflow.config.identity import is_done
from lediflow.config.pipelines import Branch, TaskConfig, branches
from lediflow.config.requests import (
    COMMANDS,
    Request,
    check_ranks,
    composed,
    job_record,
    key_of,
    slurm_options,
)
from lediflow.errors import UserError
from lediflow.training.run_folder import RunFolder


def pipeline_jobs(request: Request) -> list[PipelineJob]:
    """Those of all branches, each once and below those that it waits for."""
    jobs: dict[str, PipelineJob] = {}
    for branch in branches(request):
        for job in jobs_of(branch):
            known = jobs.setdefault(job.name, job)
            if known != job:
                raise UserError(twice(job, known))
    return list(jobs.values())


def jobs_of(branch: Branch) -> Iterator[PipelineJob]:
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
            branch.config.made = {other: jobs[other].record.run for other in before[name]}
            jobs[name] = pipeline_job(branch, name, before[name], [jobs[other].name for other in after])
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


def pipeline_job(branch: Branch, name: str, before: set[str], after: list[str]) -> PipelineJob:
    task: TaskConfig = typed(branch.config.tasks[name])
    check_task(task)
    request, overrides = Request(task.command, [], []), command_overrides(branch, name, task, before)
    config = slurm_config(branch, name, task)
    check_ranks(request, overrides, config)
    record = job_record(request, overrides, [], Path(branch.config.paths.runs))
    record = dataclasses.replace(
        record, after=after, array=task.array or None, pipeline=str(branch.config.name)
    )
    if task.command == "prepare":
        check_source(record.command)
    return PipelineJob(name, record, config, is_trained=task.command == "train" and is_trained(record))


def check_task(task: TaskConfig) -> None:
    if task.command not in COMMANDS:
        raise UserError(f"command: {task.command} is unknown; choose one of {', '.join(COMMANDS)}")
    if task.array and task.command != "encode":
        raise UserError(f"array={task.array}: only encode shares its work; leave array out")
    if folder_key(task) not in task.overrides:
        raise UserError(f"its overrides need {folder_key(task)}:, the folder that it makes")


def check_source(command: Sequence[str]) -> None:
    source = Path(typed(composed("prepare", command[1:])).source)
    if not source.exists():
        raise UserError(f"source={source} does not exist; give a folder or an archive of photographs")


def folder_key(task: TaskConfig) -> str:
    return "run" if task.command == "train" else "output"


def command_overrides(branch: Branch, name: str, task: TaskConfig, before: set[str]) -> list[str]:
    """The file's, with the command line's in their place."""
    key, suffix = folder_key(task), folder_suffix(branch, task, {name, *before})
    values = {**task.overrides, key: f"{task.overrides[key]}{suffix}"}
    chosen = {option: f"{option}={rendered(value)}" for option, value in values.items()}
    own = [item for item in branch.tasks[name] if not is_for_slurm(item)]
    training = branch.training if task.command == "train" else []
    return [*(chosen | {key_of(item): item for item in [*branch.paths, *training, *own]}).values()]


def folder_suffix(branch: Branch, task: TaskConfig, lineage: set[str]) -> str:
    """Swept values that reach the task or one before it, and that its folder does not tell yet."""
    folder = str(task.overrides[folder_key(task)])
    trains = any(branch.config.tasks[name].command == "train" for name in lineage)
    telling = []
    for item in branch.sweep:
        head, _, rest = key_of(item).partition(".")
        reaches = head in lineage and not is_for_slurm(rest) if head in branch.tasks else trains
        if reaches and (text := item.replace("/", "_")) not in folder:
            telling.append(f",{text}")
    return "".join(sorted(telling))


def is_for_slurm(item: str) -> bool:
    return key_of(item).partition(".")[0] == "slurm"


def slurm_config(branch: Branch, name: str, task: TaskConfig) -> SlurmConfig:
    """The preset, then the file's own values, the command line's for all tasks, and those for this one."""
    ours = [
        f"slurm={task.preset}",
        *(f"++slurm.{key}={rendered(value)}" for key, value in task.slurm.items()),
    ]
    own = [item for item in branch.tasks[name] if is_for_slurm(item)]
    return slurm_options([*{key_of(item): item for item in [*ours, *branch.slurm, *own]}.values()]).slurm


def rendered(value: Any) -> str:
    """A value in Hydra's grammar."""
    match value:
        case str():
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case list():
            return f"[{','.join(map(rendered, value))}]"
        case dict():
            return "{" + ",".join(f"{key}:{rendered(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def is_trained(record: JobRecord) -> bool:
    """Whether the run folder holds this training, finished; an error if it holds another one."""
    folder = RunFolder(Path(record.run))
    return folder.is_exported and is_done(folder, typed(composed("train", record.command[1:])))


def twice(job: PipelineJob, known: PipelineJob) -> str:
    ours, theirs = {*told(job)}, {*told(known)}
    return (
        f"task {job.task} would make {job.record.run} twice, with {' '.join(sorted(ours - theirs))} and with "
        f"{' '.join(sorted(theirs - ours))}; submit them one at a time with folders of their own"
    )


def told(job: PipelineJob) -> list[str]:
    return [
        *job.record.command,
        *(f"slurm.{key}={value}" for key, value in dataclasses.asdict(job.config).items()),
    ]
