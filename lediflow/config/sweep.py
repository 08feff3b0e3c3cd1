"""Run folders of a sweep: jobs that differ in more than their folder's name says must not share it.

    flow-learned-seed0__train.images-5__train.ema.half_life_images-10

Each telling override is a part KEY-VALUE. What a file name should not hold is written as _, and then a hash of the
override tells it from others that look alike. Older folders of the form `...,train.images=5` are found and continued.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from lediflow.config.literal import without_references

NAMED = ("name", "stage", "seed", "prior", "experiment")  # the default folder's name holds them
INPUTS = ("data.path", "parent")  # where they are not swept, a run is known without their place
HARMLESS = ("paths", "engine", "tracking", "hydra", "dry_run", "dry_run_ranks", "nodes")  # change no result
JOINT = "__"
LONGEST = 120  # characters that are added to a folder's name
EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"  # Hydra's own list of keys that name no folder


def separate_jobs(config: DictConfig) -> None:
    """In a multirun without an explicit run=, append the other overrides to the run folder's name."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return
    hydra = HydraConfig.get()
    folder = sweep_folder(str(config.run), without_excluded(hydra.overrides.task, config_keys(hydra)))
    with open_dict(config):
        config.run = without_references(folder)


def config_keys(hydra: Any) -> list[str]:
    """Keys that name no folder in this multirun."""
    return list(hydra.job.config.override_dirname.exclude_keys)


def without_excluded(overrides: Iterable[str], excluded: Iterable[str]) -> list[str]:
    keys = {*excluded}
    return [item for item in overrides if key_of(item) not in keys]


def exclusion(arguments: Sequence[str]) -> list[str]:
    """What a multirun's command line needs besides: inputs that are not swept name no folder."""
    try:
        parsed = OverridesParser.create().parse_overrides([item for item in arguments if item[:1] != "-"])
    except HydraException:  # Hydra explains it
        return []
    swept = {item.key_or_group for item in parsed if item.is_sweep_override()}
    return [f"{EXCLUDED}=[{','.join(key for key in INPUTS if key not in swept)}]"]


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def sweep_folder(run: str, overrides: Sequence[str]) -> str:
    """The folder of a job that differs from others in these overrides, for a run that would be in `run` without them.

    `run` itself where it was chosen, or where nothing tells.
    """
    if any(key_of(item) == "run" for item in overrides):
        return run
    older = [f"{run},{old}" for old in older_suffixes(overrides) if old]
    found = next(
        (folder for folder in older if Path(folder).is_dir() and agrees(Path(folder), overrides)), None
    )
    return found or run + suffix([item for item in overrides if is_telling(item)])


def agrees(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether an older run has the values that older names left out: those of options of a stage, and its inputs."""
    if not (folder / "config.yaml").is_file():
        return True
    there = OmegaConf.load(folder / "config.yaml")
    unnamed = [item for item in overrides if key_of(item).startswith("stage.") or key_of(item) in INPUTS]
    return all(OmegaConf.select(there, key_of(item)) == yaml.safe_load(value_of(item)) for item in unnamed)


def is_telling(override: str) -> bool:
    """Whether a default folder's name leaves out a value that a run's result depends on."""
    key = key_of(override)
    return key not in NAMED and not any(key == name or key.startswith(f"{name}.") for name in HARMLESS)


def suffix(overrides: Iterable[str]) -> str:
    """What tells these overrides apart in a folder's name, in any order; empty for none."""
    text = "".join(f"{JOINT}{part}" for part in sorted(map(part_of, overrides)))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 12]}{JOINT}{short_hash(text)}"


def part_of(override: str) -> str:
    """KEY-VALUE, with a hash where the value cannot be written as it is. Keys hold no `-`."""
    key, value = key_of(override).replace("/", "."), value_of(override)
    written = re.sub(r"[^A-Za-z0-9.-]+|_+", "_", value).strip("_")
    is_whole = written == value and len(value) < LONGEST // 2
    return f"{key}-{value}" if is_whole else f"{key}-{written[: LONGEST // 2]}_{short_hash(f'{key}={value}')}"


def value_of(override: str) -> str:
    """The value without Hydra's quotes."""
    value = OverridesParser.create().parse_override(override)._value
    return value.text if isinstance(value, QuotedString) else override.partition("=")[2]


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def older_suffixes(overrides: Sequence[str]) -> list[str]:
    """What earlier versions appended to a folder's name after a comma, with and without quotes."""
    silent = (*NAMED, *INPUTS, *HARMLESS)
    telling = [
        item
        for item in overrides
        if not any(key_of(item) == name or key_of(item).startswith(f"{name}.") for name in silent)
    ]
    plain = [f"{item.partition('=')[0]}={value_of(item)}" for item in telling]
    return [",".join(sorted(items)).replace("/", "_") for items in (telling, plain)]
