"""Pipelines: tasks that depend on each other, repeated for each combination of swept values (a branch).

conf/pipeline/NAME.yaml has the options and tasks. On the command line of `lediflow.submit pipeline=NAME`
  OPTION=VALUE            sets an option of the pipeline: source=, seed=, ...
  TASK.KEY=VALUE          sets an option of one task's command
  TASK.slurm.KEY=VALUE    sets a SLURM option of one task; likewise TASK.slurm=PRESET and TASK.array=N
  slurm.KEY=VALUE         sets a SLURM option of all tasks
  KEY=VALUE               (any other key) sets an option of every training task
Identical tasks of several branches become one job.

Precedence of a task's options, from lowest to highest: the pipeline's file; the command line's overrides for all tasks
or all trainings; the command line's overrides for this task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lediflow.cluster.jobs import SlurmConfig
from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed
from lediflow.config.composition.literal import literal_arguments, override_value
from lediflow.config.composition.schema import COMMANDS, PathsConfig, TrainCommand
from lediflow.config.composition.sweep import key_of, part_of, suffix
from lediflow.config.submission.requests import SUBMITTABLE, Request, swept
from lediflow.errors import UserError
from lediflow.ranges import bounded

PATHS = "paths"  # options under this key apply to the pipeline and to all its tasks
ENDINGS = (".tar", ".gz", ".xz", ".bz2", ".zip", ".parquet", ".csv", ".tsv", ".txt", ".lmdb")


@dataclass(kw_only=True)
class TaskConfig:
    """One job of a pipeline."""

    command: str = MISSING  # prepare | encode | train | sample | evaluate
    # tasks above it in the file that must succeed before it starts
    after: list[str] = field(default_factory=list)
    # options of the command; `run` or `output` is the folder that it writes
    overrides: dict[str, Any] = field(default_factory=dict)
    preset: str = "cpu"  # SLURM options: a file of conf/slurm
    slurm: dict[str, Any] = field(default_factory=dict)  # SLURM options that differ from the preset
    array: int = bounded(0, at_least=0)  # encode only: number of jobs that split the work; 0: one job


@dataclass(kw_only=True)
class PipelineConfig:
    """`pipeline=NAME`."""

    name: str = MISSING  # prefix of its folders and experiments
    options: dict[str, Any] = field(default_factory=dict)  # options that the command line can set by name
    tasks: dict[str, TaskConfig] = field(default_factory=dict)  # a task comes after those that it waits for
    # task name -> folder, for the tasks that a task depends on; filled in by pipeline_jobs
    made: dict[str, str] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(frozen=True)
class Branch:
    """One combination of swept values; the overrides are grouped by what they apply to."""

    config: DictConfig  # PipelineConfig with the options set
    paths: list[str]  # overrides for all tasks
    slurm: list[str]  # overrides for all tasks
    training: list[str]  # overrides for every training task
    tasks: dict[str, list[str]]  # task name -> its overrides, without the name
    sweep: list[str]  # swept values as typed, except those of options of the pipeline


def pipeline_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/pipeline/NAME.yaml, with the resolver `stem` for its interpolations."""
    OmegaConf.register_new_resolver("stem", stem, replace=True)
    ConfigStore.instance().store(name="pipeline_schema", node=PipelineConfig)
    return composed("pipeline", [f"pipeline={name}", *overrides])


def stem(path: str) -> str:
    """The name of a folder or archive, without the extensions of archives."""
    name = Path(path).name
    while name.lower().endswith(ENDINGS):
        name = Path(name).stem
    return name


def branches(request: Request) -> list[Branch]:
    """One branch for each combination of swept values."""
    assert request.pipeline is not None
    known = pipeline_config(request.pipeline)
    overrides = literal_arguments(request.overrides, schemas_of(known), is_sweep=True)
    return [branch(request, known, *combination) for combination in swept(overrides)]


def schemas_of(pipeline: DictConfig) -> list[Any]:
    """Schemas of the keys on the command line: the pipeline's options, each task's command, and all trainings."""
    defaults: Any = OmegaConf.to_container(pipeline.options, resolve=False)
    options = {str(name): str for name, value in defaults.items() if isinstance(value, str)}
    about_job = {"slurm": SlurmConfig, "array": int}
    tasks = {
        str(name): (COMMANDS[task.command], about_job)
        for name, task in pipeline.tasks.items()
        if task.command in COMMANDS
    }
    return [options | tasks, TrainCommand]


def branch(request: Request, known: DictConfig, overrides: Sequence[str], sweep: Sequence[str]) -> Branch:
    """Group the overrides of one combination; UserError if an option of the pipeline has no value."""
    sorted_: dict[str, list[str]] = {"options": [], "paths": [], "training": []}
    options, tasks = list(known.options), {str(name): list[str]() for name in known.tasks}
    for item in overrides:
        head = key_of(item).partition(".")[0]
        if head in tasks:
            tasks[head].append(item.replace(f"{head}.", "", 1))
        elif key_of(item) in options:
            sorted_["options"].append(f"options.{item}")
        else:
            sorted_["paths" if head == PATHS else "training"].append(item)
    arrays = [
        f"tasks.{name}.{item}" for name, own in tasks.items() for item in own if key_of(item) == "array"
    ]
    config = pipeline_config(str(request.pipeline), [*sorted_["options"], *sorted_["paths"], *arrays])
    given: Any = OmegaConf.to_container(config.options, resolve=False)
    if missing := [key for key, value in given.items() if value == MISSING]:
        needed = " ".join(f"{key}=..." for key in missing)
        raise UserError(
            f"pipeline={request.pipeline} needs {needed}, which has no value; add it to the command"
        )
    tasks = {name: [item for item in own if key_of(item) != "array"] for name, own in tasks.items()}
    others = [item for item in sweep if key_of(item) not in options]
    return Branch(config, sorted_["paths"], request.slurm, sorted_["training"], tasks, others)


@dataclass(frozen=True)
class TaskRequest:
    """A task of a branch before composition: its command and overrides."""

    pipeline: str
    task: str
    command: str
    overrides: tuple[str, ...]  # options of the command
    slurm: tuple[str, ...]  # options of the SLURM job
    after: tuple[str, ...]  # names of the jobs that it waits for
    array: int
    runs: Path


def task_request(branch: Branch, name: str, before: set[str], after: tuple[str, ...]) -> TaskRequest:
    task: TaskConfig = typed(branch.config.tasks[name])
    check_task(task)
    return TaskRequest(
        pipeline=str(branch.config.name),
        task=name,
        command=task.command,
        overrides=command_overrides(branch, name, task, before),
        slurm=slurm_overrides(branch, name, task),
        after=after,
        array=task.array,
        runs=Path(branch.config.paths.runs),
    )


def check_task(task: TaskConfig) -> None:
    """Reject an unknown command, an array of a command other than encode, and a task without a folder."""
    if task.command not in SUBMITTABLE:
        raise UserError(f"command: {task.command} is unknown; choose one of {', '.join(SUBMITTABLE)}")
    if task.array and task.command != "encode":
        raise UserError(f"array={task.array}: only encode can split its work over an array; leave array out")
    if folder_key(task) not in task.overrides:
        raise UserError(f"its overrides need {folder_key(task)}:, the folder that it writes")


def folder_key(task: TaskConfig) -> str:
    """The option that names the folder that the task writes."""
    return "run" if task.command == "train" else "output"


def command_overrides(branch: Branch, name: str, task: TaskConfig, before: set[str]) -> tuple[str, ...]:
    """Options of the command: those of the file, replaced by those of the command line."""
    key = folder_key(task)
    folder = f"{task.overrides[key]}{folder_suffix(branch, task, {name, *before})}"
    values = {**task.overrides, key: folder}
    chosen = {option: f"{option}={rendered(value)}" for option, value in values.items()}
    own = [item for item in branch.tasks[name] if not is_for_slurm(item)]
    training = branch.training if task.command == "train" else []
    return tuple((chosen | {key_of(item): item for item in [*branch.paths, *training, *own]}).values())


def folder_suffix(branch: Branch, task: TaskConfig, lineage: set[str]) -> str:
    """Suffix of the task's folder: swept values that affect it or a task before it, and are not in its name yet."""
    folder = str(task.overrides[folder_key(task)])
    trains = any(branch.config.tasks[name].command == "train" for name in lineage)
    telling = []
    for item in branch.sweep:
        head, _, rest = key_of(item).partition(".")
        reaches = head in lineage and not is_for_slurm(rest) if head in branch.tasks else trains
        if reaches and part_of(item) not in folder and item.replace("/", "_") not in folder:
            telling.append(item)
    older = "".join(sorted(f",{item.replace('/', '_')}" for item in telling))
    return older if older and Path(folder + older).is_dir() else suffix(telling)


def slurm_overrides(branch: Branch, name: str, task: TaskConfig) -> tuple[str, ...]:
    """SLURM options: the preset, then the file's values, the command line's for all tasks, and those for this task."""
    ours = [f"++slurm.{key}={rendered(value)}" for key, value in task.slurm.items()]
    own = [item for item in branch.tasks[name] if is_for_slurm(item)]
    given = [f"slurm={task.preset}", *ours, *branch.slurm, *own]
    return tuple({key_of(item): item for item in given}.values())


def is_for_slurm(item: str) -> bool:
    """Whether an override of a task is an option of SLURM."""
    return key_of(item).partition(".")[0] == "slurm"


def rendered(value: Any) -> str:
    """A value written in Hydra's override grammar."""
    match value:
        case str():
            return override_value(value)
        case list():
            return f"[{','.join(map(rendered, value))}]"
        case dict():
            return "{" + ",".join(f"{key}:{rendered(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
