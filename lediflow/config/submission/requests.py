"""Parses a command line of lediflow.submit: a command, its options and sweeps, and SLURM options."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lediflow.cluster.jobs import JobRecord, SlurmConfig, job_name
from lediflow.config.composition.checks import check_command, typed
from lediflow.config.composition.compose import composed
from lediflow.config.composition.literal import literal_arguments, override_value
from lediflow.config.composition.schema import COMMANDS, SubmitCommand
from lediflow.config.composition.sweep import key_of, sweep_folder
from lediflow.engine.engines import engine_kind
from lediflow.errors import UserError

SUBMITTABLE = ("train", "prepare", "encode", "sample", "evaluate")
OWN = ("slurm", "command", "pipeline")  # keys that are not options of the command


@dataclass(frozen=True)
class Request:
    """A parsed command line."""

    command: str  # train, prepare, ...
    overrides: list[str]  # options of the command
    slurm: list[str]  # options of the SLURM job
    pipeline: str | None = None


def parse_request(arguments: Sequence[str]) -> Request:
    """Split a command line into its parts, with string options quoted where Hydra's grammar needs it.

    Raises UserError for a command that cannot be submitted.
    """
    own = {
        key_of(item): item.partition("=")[2] for item in arguments if key_of(item) in ("command", "pipeline")
    }
    command = own.get("command", "train")
    if command not in SUBMITTABLE:
        raise UserError(f"command={command} cannot be submitted; choose one of {', '.join(SUBMITTABLE)}")
    slurm = [
        item
        for item in arguments
        if key_of(item).partition(".")[0] == "slurm" or key_of(item) == "paths.runs"
    ]
    rest = [item for item in arguments if key_of(item).partition(".")[0] not in OWN]
    slurm = literal_arguments(slurm, [SubmitCommand], is_sweep=False)
    if "pipeline" not in own:  # a pipeline has other schemas, see pipelines.schemas_of
        rest = literal_arguments(rest, [COMMANDS[command]], is_sweep=True)
    return Request(command, rest, slurm, own.get("pipeline"))


def swept(overrides: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """For each combination of swept values: all overrides, and the swept ones among them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if item.is_sweep_override()
        else [item.input_line or ""]
        for item in parsed
    ]
    are_swept = [item.is_sweep_override() for item in parsed]
    for combination in itertools.product(*choices):
        yield list(combination), list(itertools.compress(combination, are_swept))


def slurm_options(overrides: Sequence[str]) -> SubmitCommand:
    return typed(composed("submit", overrides))


def job_record(
    request: Request, overrides: Sequence[str], sweep: Sequence[str], runs: Path, slurm: SlurmConfig
) -> JobRecord:
    """The record of one job: its command is checked as it would be at its start, its folder made absolute."""
    config = composed(request.command, overrides)
    check_ranks(request.command, config, slurm)
    key = "run" if request.command == "train" else "output"
    command: Any = typed(config)
    folder = getattr(command, key)
    if folder is None:
        raise UserError(f"command={request.command} needs {key}=..., the folder that it writes")
    if request.command == "train":
        check_command(command)
        folder = sweep_folder(folder, sweep)
    folder = Path(folder).absolute()
    options = [item for item in overrides if key_of(item) != key]
    return JobRecord(
        name=job_name(folder, runs),
        command=[f"lediflow.{request.command}", *options, f"{key}={override_value(str(folder))}"],
        run=str(folder),
        folder=str(Path.cwd()),
    )


def check_ranks(command: str, config: DictConfig, slurm: SlurmConfig) -> None:
    """Reject a request for more processes than the command uses, which would waste GPU hours."""
    asked = f"{slurm.nodes} nodes x {slurm.tasks_per_node} tasks are requested"
    if slurm.nodes * slurm.tasks_per_node == 1 or command in ("encode", "evaluate"):
        return
    if command != "train":
        raise UserError(f"command={command} is one process, but {asked}; choose slurm=one_gpu or slurm=cpu")
    name = config.engine.name
    if engine_kind(name).is_one_process:
        raise UserError(
            f"engine={name} is one process, but {asked}; add engine=deepspeed, or choose slurm=one_gpu"
        )
