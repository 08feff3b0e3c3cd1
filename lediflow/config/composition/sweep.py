"""Run folders of a sweep: every job gets a folder of its own, named by the overrides that affect its result.

    flow-learned-seed0__train.images-5__train.ema.half_life_images-10

Each override that affects the result adds a part KEY-VALUE. Characters unsuitable for file names become _, and a hash
of the override then keeps names distinct. Folders of earlier releases, `...,train.images=5`, are found and continued.
"""

from __future__ import annotations

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

from lediflow.config.composition.literal import without_references
from lediflow.disk import hash_key

# keys whose values are in the name of the default folder
NAMED = ("name", "stage", "seed", "prior", "experiment")
INPUTS = ("data.path", "parent")  # in the name only if they are swept
# keys that do not affect the result
HARMLESS = ("paths", "engine", "tracking", "hydra", "dry_run", "dry_run_ranks", "nodes")
JOINT = "__"
LONGEST = 120  # of a suffix, in characters
HASH_DIGITS = 10
EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"  # Hydra's list of keys that are not part of a folder's name


def separate_jobs(config: DictConfig) -> None:
    """In a multirun without an explicit run=, append the other overrides to the name of the run folder."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return
    hydra = HydraConfig.get()
    folder = sweep_folder(str(config.run), without_excluded(hydra.overrides.task, config_keys(hydra)))
    with open_dict(config):
        config.run = without_references(folder)


def config_keys(hydra: Any) -> list[str]:
    """Keys that are not part of a folder's name in this multirun."""
    return list(hydra.job.config.override_dirname.exclude_keys)


def without_excluded(overrides: Iterable[str], excluded: Iterable[str]) -> list[str]:
    """The overrides whose keys are not excluded."""
    keys = {*excluded}
    return [item for item in overrides if key_of(item) not in keys]


def exclusion(arguments: Sequence[str]) -> list[str]:
    """An override that keeps inputs that are not swept out of the folder names of a multirun."""
    try:
        parsed = OverridesParser.create().parse_overrides([item for item in arguments if item[:1] != "-"])
    except HydraException:  # Hydra reports it later
        return []
    swept = {item.key_or_group for item in parsed if item.is_sweep_override()}
    return [f"{EXCLUDED}=[{','.join(key for key in INPUTS if key not in swept)}]"]


def key_of(override: str) -> str:
    """The key of an override, without + and ~."""
    return override.lstrip("+~").partition("=")[0]


def sweep_folder(run: str, overrides: Sequence[str]) -> str:
    """The folder of a sweep's job with these overrides; `run` is its folder outside of a sweep.

    It is `run` itself if run= was given, or if no override affects the result.
    """
    if any(key_of(item) == "run" for item in overrides):
        return run
    older = [f"{run},{old}" for old in older_suffixes(overrides) if old]
    found = next(
        (folder for folder in older if Path(folder).is_dir() and agrees(Path(folder), overrides)), None
    )
    return found or run + suffix([item for item in overrides if affects_result(item)])


def agrees(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a run of an earlier release has these stage options and inputs, which its name does not contain."""
    if not (folder / "config.yaml").is_file():
        return True
    there = OmegaConf.load(folder / "config.yaml")
    unnamed = [item for item in overrides if key_of(item).startswith("stage.") or key_of(item) in INPUTS]
    return all(OmegaConf.select(there, key_of(item)) == yaml.safe_load(value_of(item)) for item in unnamed)


def affects_result(override: str) -> bool:
    """Whether an override affects the result and is missing from the name of the default folder."""
    key = key_of(override)
    return key not in NAMED and not any(key == name or key.startswith(f"{name}.") for name in HARMLESS)


def suffix(overrides: Iterable[str]) -> str:
    """The suffix of a folder's name for these overrides, independent of their order; "" if there are none."""
    text = "".join(f"{JOINT}{part}" for part in sorted(map(part_of, overrides)))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 12]}{JOINT}{hash_key(text, HASH_DIGITS)}"


def part_of(override: str) -> str:
    """KEY-VALUE, with a hash if the value had to be changed or shortened. Keys contain no `-`."""
    key, value = key_of(override).replace("/", "."), value_of(override)
    written = re.sub(r"[^A-Za-z0-9.-]+|_+", "_", value).strip("_")
    is_whole = written == value and len(value) < LONGEST // 2
    if is_whole:
        return f"{key}-{value}"
    return f"{key}-{written[: LONGEST // 2]}_{hash_key(f'{key}={value}', HASH_DIGITS)}"


def value_of(override: str) -> str:
    """The value without Hydra's quotes."""
    value = OverridesParser.create().parse_override(override)._value
    return value.text if isinstance(value, QuotedString) else override.partition("=")[2]


def older_suffixes(overrides: Sequence[str]) -> list[str]:
    """Suffixes that earlier releases appended to a folder's name, with and without quotes."""
    silent = (*NAMED, *INPUTS, *HARMLESS)
    telling = [
        item
        for item in overrides
        if not any(key_of(item) == name or key_of(item).startswith(f"{name}.") for name in silent)
    ]
    plain = [f"{item.partition('=')[0]}={value_of(item)}" for item in telling]
    return [",".join(sorted(items)).replace("/", "_") for items in (telling, plain)]
