"""Shell commands that error messages suggest: train a missing run, or continue an interrupted one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lediflow.config.composition.compose import composed, conf_folder
from lediflow.config.composition.literal import override_value
from lediflow.config.composition.schema import TrainCommand
from lediflow.config.composition.sweep import key_of
from lediflow.records import RecordError, leaves
from lediflow.run_folder import RunFolder
from lediflow.stages import STAGES

# options with the same value in all stages of an experiment
COMMON = ("data", "engine", "model", "name", "paths", "seed", "synthetic_images", "tracking")
# options of one start of a run, which do not change its result
START_ONLY = ("dry_run", "dry_run_ranks", "nodes", "paths", "per_stage", "run")
# options that name other runs by their folders
RUNS = ("parent", "teacher", "sampler", "warm_start")
PLAIN = re.compile(r"[\w./-]+")


def auxiliary_command(command: TrainCommand, folder: Path) -> str:
    """The command that trains, in `folder`, the auxiliary model that a dependent stage needs.

    If a training was interrupted there, the command continues it with its own options. Otherwise it takes the options
    that all stages share from this process's command line.
    """
    if continuing := continuing_command(folder):
        return continuing
    experiment = existing_experiment(f"{command.name}_auxiliary") or command.name
    words = [f"experiment={experiment}", "stage=auxiliary", *shared_overrides(command)]
    return as_command([*words, f"run={hydra_text(str(folder))}"])


def continuing_command(folder: Path) -> str | None:
    """The command that continues the training in a run folder; None if its options cannot be read."""
    options = recorded_options(folder)
    if options is None or not isinstance(options.get("stage"), dict):
        return None
    name, stage = str(options.get("name")), str(options["stage"].get("name"))
    ends = ("fm", stage) if options.get("prior") == "gaussian" else (stage,)
    names = [*(f"{name}_{end}" for end in ends), name]
    known = next((found for found in map(existing_experiment, names) if found), None)
    words = [*([f"experiment={known}"] if known else []), f"stage={stage}", f"run={hydra_text(str(folder))}"]
    left_out = START_ONLY if stage in STAGES and STAGES[stage].has_parent else (*START_ONLY, "parent")
    return as_command([*words, *differing_overrides(words, relocated(options, folder), left_out)])


def relocated(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Recorded options with relative paths made valid from this working folder, if the run was started from another.

    The working folder of the start is derived from the run folder and from its recorded relative `run=`.
    """
    run, root = Path(str(options.get("run"))), folder.absolute()
    began = Path(*root.parts[: -len(run.parts) or None])
    data = options.get("data")
    if run.is_absolute() or began / run != root or began == Path.cwd():
        return dict(options)
    moved = dict(options)
    if isinstance(data, dict) and isinstance(data.get("path"), str) and (began / data["path"]).exists():
        moved["data"] = {**data, "path": str((began / data["path"]).resolve())}
    for name in RUNS:
        if isinstance(path := options.get(name), str) and (began / path).exists():
            moved[name] = str((began / path).resolve())
    return moved


def require_export(folder: RunFolder, role: str, otherwise: str) -> Path:
    """The export folder of a finished run; UserError if it is unfinished, with the command to run or `otherwise`."""
    if folder.is_exported:
        return folder.export
    return folder.require_export(role, continuing_command(folder.root) or otherwise)


def as_command(words: list[str]) -> str:
    """A training command with these overrides, quoted for a shell."""
    return f"python -m lediflow.train {shlex.join(words)}"


def existing_experiment(name: str) -> str | None:
    """The name if conf/experiment has a file of that name, else None."""
    return name if (conf_folder() / "experiment" / f"{name}.yaml").is_file() else None


def shared_overrides(command: TrainCommand) -> list[str]:
    """Overrides on this process's command line that apply to every stage; data.path is always among them."""
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    shared = [item for item in overrides if key_of(item).partition("@")[0].partition(".")[0] in COMMON]
    if "data.path" in map(key_of, shared):
        return shared
    return [*shared, f"data.path={hydra_text(str(command.data.path))}"]


def recorded_options(folder: Path) -> dict[str, Any] | None:
    """The resolved options of the folder's last start; None if they are missing or cannot be read."""
    try:
        return RunFolder(folder).recorded_options()
    except RecordError:
        return None


def differing_overrides(words: list[str], recorded: Mapping[str, Any], left_out: Sequence[str]) -> list[str]:
    """Overrides that give a command the recorded options, except for the keys in `left_out`."""
    try:
        ours: Any = OmegaConf.to_container(composed("train", words), resolve=True)
    except (HydraException, OmegaConfBaseException):  # options of another release
        return []
    now, then = dict(leaves(ours)), dict(leaves(recorded))
    return [
        f"{key}={hydra_text(value)}"
        for key, value in then.items()
        if key in now and now[key] != value and key.partition(".")[0] not in left_out
    ]


def hydra_text(value: Any) -> str:
    """A value written in Hydra's override grammar."""
    match value:
        case None | bool():
            return str(value).lower().replace("none", "null")
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ",".join(f"{key}:{hydra_text(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(hydra_text, value)) + "]"
    text = str(value)
    if PLAIN.fullmatch(text) and isinstance(yaml.safe_load(text), str) and not is_number(text):
        return text
    return override_value(text)


def is_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
