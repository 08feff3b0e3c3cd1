"""A pipeline: tasks that wait for each other, once for each combination of swept values.

conf/pipeline/NAME.yaml has its options and tasks. On the command line of `lediflow.submit pipeline=NAME`
  OPTION=VALUE            is an option of the pipeline: source=, seed=, ...
  TASK.KEY=VALUE          is for the command of one task
  TASK.slurm.KEY=VALUE    is what one task asks SLURM for; so are TASK.slurm=PRESET and TASK.array=N
  slurm.KEY=VALUE         is what all tasks ask SLURM for
  KEY=VALUE               that is none of these is for every training task
Tasks of two combinations that come out the same are one job; the others are jobs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lediflow.cluster.jobs import SlurmConfig
from lediflow.config.literal import literal_arguments
from lediflow.config.requests import Request, composed, swept
from lediflow.config.schema import COMMANDS, PathsConfig, TrainCommand
from lediflow.config.sweep import key_of
from lediflow.errors import UserError
from lediflow.ranges import bounded

PATHS = "paths"  # for the pipeline and all its tasks
ENDINGS = (".tar", ".gz", ".xz", ".bz2", ".zip", ".parquet", ".csv", ".tsv", ".txt", ".lmdb")


@dataclass(kw_only=True)
class TaskConfig:
    """One job of a pipeline."""

    command: str = MISSING  # prepare | encode | train | sample | evaluate
    after: list[str] = field(
        default_factory=list
    )  # tasks above it that must have ended well before it starts
    overrides: dict[str, Any] = field(default_factory=dict)  # of the command; run or output is its folder
    preset: str = "cpu"  # what it asks SLURM for: a file of conf/slurm ...
    slurm: dict[str, Any] = field(default_factory=dict)  # ... and what is different from it
    array: int = bounded(0, at_least=0)  # encode only: so many jobs share the work; 0: one job


@dataclass(kw_only=True)
class PipelineConfig:
    """`pipeline=NAME`."""

    name: str = MISSING  # what its folders and experiments are named by
    options: dict[str, Any] = field(default_factory=dict)  # what the command line may change by name
    tasks: dict[str, TaskConfig] = field(default_factory=dict)  # each below those that it waits for
    made: dict[str, str] = field(default_factory=dict)  # folders of the tasks before a task; filled in
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(frozen=True)
class Branch:
    """One combination of values, sorted by whom each is for."""

    config: DictConfig  # PipelineConfig with its options
    paths: list[str]  # for all tasks
    slurm: list[str]  # for all tasks
    training: list[str]  # for every training task
    tasks: dict[str, list[str]]  # for one task; its name is left out
    sweep: list[str]  # swept values that are no options of the pipeline, as they were typed


def pipeline_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    OmegaConf.register_new_resolver("stem", stem, replace=True)
    ConfigStore.instance().store(name="pipeline_schema", node=PipelineConfig)
    return composed("pipeline", [f"pipeline={name}", *overrides])


def stem(path: str) -> str:
    """The name of a folder or archive, without what archives end in."""
    name = Path(path).name
    while name.lower().endswith(ENDINGS):
        name = Path(name).stem
    return name


def branches(request: Request) -> list[Branch]:
    """One for each combination of values."""
    assert request.pipeline is not None
    known = pipeline_config(request.pipeline)
    overrides = literal_arguments(request.overrides, schemas_of(known), is_sweep=True)
    return [branch(request, known, *combination) for combination in swept(overrides)]


def schemas_of(pipeline: DictConfig) -> list[Any]:
    """The types of what may be changed: options by their defaults, each task's by its command, all trainings'."""
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
    """UserError where an option of the pipeline has no value."""
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
    told: Any = OmegaConf.to_container(config.options, resolve=False)
    if missing := [key for key, value in told.items() if value == MISSING]:
        raise UserError(f"pipeline={request.pipeline} needs {' '.join(f'{key}=...' for key in missing)}")
    tasks = {name: [item for item in own if key_of(item) != "array"] for name, own in tasks.items()}
    others = [item for item in sweep if key_of(item) not in options]
    return Branch(config, sorted_["paths"], request.slurm, sorted_["training"], tasks, others)
