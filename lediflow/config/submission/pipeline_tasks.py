"""The overrides of one task of a pipeline: of its command, its folder, and its SLURM options.

Precedence, from lowest to highest: the pipeline's file; the command line's overrides for all tasks or all trainings;
the command line's overrides for this task.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.config.composition.compose import typed
from lediflow.config.composition.literal import override_value
from lediflow.config.composition.sweep import key_of, part_of, suffix
from lediflow.config.submission.pipelines import Branch, TaskConfig
from lediflow.config.submission.requests import COMMANDS
from lediflow.errors import UserError


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
    if task.command not in COMMANDS:
        raise UserError(f"command: {task.command} is unknown; choose one of {', '.join(COMMANDS)}")
    if task.array and task.command != "encode":
        raise UserError(f"array={task.array}: only encode can split its work over an array; leave array out")
    if folder_key(task) not in task.overrides:
        raise UserError(f"its overrides need {folder_key(task)}:, the folder that it writes")


def folder_key(task: TaskConfig) -> str:
    """The option that names the folder that the task writes."""
    return "run" if task.command == "train" else "output"


def command_overrides(branch: Branch, name: str, task: TaskConfig, before: set[str]) -> tuple[str, ...]:
    """Options of the command: those of the file, replaced by those of the command line."""
    key, suffix = folder_key(task), folder_suffix(branch, task, {name, *before})
    values = {**task.overrides, key: f"{task.overrides[key]}{suffix}"}
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
