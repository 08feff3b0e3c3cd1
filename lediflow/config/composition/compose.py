"""From overrides to a checked dataclass: Hydra composes the files of conf/, typed() makes the command's dataclass.

The schemas are registered with Hydra first, so every key is a field of a dataclass and every value has its type; the
YAML files only choose values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

import lediflow
from lediflow.config.composition.checks import check_blanks
from lediflow.config.composition.schema import COMMANDS
from lediflow.errors import UserError
from lediflow.ranges import OutOfRangeError, check_ranges
from lediflow.stages import STAGES


def conf_folder() -> Path:
    """The folder conf/: next to the package in a checkout, inside it when installed from a wheel."""
    package = Path(lediflow.__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def register_schemas() -> None:
    """Register the schemas of all commands and stages with Hydra.

    A stage without a file in conf/stage is `stage=<name>` with the defaults of its dataclass.
    """
    register_commands()
    store = ConfigStore.instance()
    for name, kind in STAGES.items():  # each time, because stages may be added to the table
        store.store(group="stage", name=f"{name}_schema", node=kind.options)
        if not (conf_folder() / "stage" / f"{name}.yaml").is_file():
            store.store(group="stage", name=name, node=kind.options)


@cache
def register_commands() -> None:
    """Register the schemas of all commands, once per process: it takes 0.1 s."""
    for name, command in COMMANDS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=command)


def composed(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/NAME.yaml with overrides, outside of a running Hydra command."""
    register_schemas()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose(name, list(overrides))


def typed(config: DictConfig) -> Any:
    """Convert a composed configuration to its dataclass, with interpolations resolved and numbers checked.

    Raises UserError, with the full name of the option, for an invalid value.
    """
    try:
        command = OmegaConf.to_object(config)
    except ValueError as error:  # raised by a __post_init__
        key, message = key_of_contradiction(config), str(error)
        joint = "." if isinstance(error, OutOfRangeError) else ": "
        raise UserError(message if message.startswith(key) else f"{key}{joint}{message}") from error
    check_ranges(command)
    check_blanks(command)
    return command


def key_of_contradiction(node: DictConfig | ListConfig, key: str = "") -> str:
    """The key of the innermost part whose dataclass raises ValueError: model.velocity.levels[1]; "" at the root."""
    for name, part in parts_of(node, key):
        try:
            OmegaConf.to_object(part)
        except ValueError:
            return key_of_contradiction(part, name)
    return key


def parts_of(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, DictConfig | ListConfig]]:
    """The mappings and lists directly inside a node, with their full keys."""
    if isinstance(node, DictConfig):
        given = [str(name) for name in node if not OmegaConf.is_missing(node, name)]
        named = [(f"{key}.{name}".lstrip("."), node[name]) for name in given]
    else:
        named = [(f"{key}[{number}]", part) for number, part in enumerate(node)]
    return ((name, part) for name, part in named if isinstance(part, DictConfig | ListConfig))
