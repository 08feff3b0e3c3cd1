"""From overrides to a configuration: Hydra composes the files of conf/.

The schemas are registered with Hydra first, so every key is a field of a dataclass and every value has its type; the
YAML files only choose values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import lediflow
from lediflow.codecs import CODECS, CodecConfig
from lediflow.config.composition.schema import COMMANDS
from lediflow.engine.engines import ENGINES
from lediflow.engine.protocol import EngineConfig
from lediflow.stages import STAGES


def conf_folder() -> Path:
    """The folder conf/: next to the package in a checkout, inside it when installed from a wheel."""
    package = Path(lediflow.__file__).parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "train.yaml").is_file() else package / "conf"


def register_schemas() -> None:
    """Register the schemas of all commands and stages with Hydra.

    `stage=<name>`, `codec=<name>` and `engine=<name>` need no file in conf/: without one, they are the defaults of
    their dataclass.
    """
    register_commands()
    OmegaConf.register_new_resolver("suffix_unless", suffix_unless, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    # each time, because entries may be added to the tables
    for name, kind in STAGES.items():
        ConfigStore.instance().store(group="stage", name=f"{name}_schema", node=kind.options)
        register_without_file("stage", name, kind.options)
    for name in CODECS:
        register_without_file("codec", name, CodecConfig(name=name))
    for name in ENGINES:
        register_without_file("engine", name, EngineConfig(name=name))


def register_without_file(group: str, name: str, node: Any) -> None:
    """Register an option of a group, unless conf/ has a file of that name."""
    if not (conf_folder() / group / f"{name}.yaml").is_file():
        ConfigStore.instance().store(group=group, name=name, node=node)


def choices(group: str) -> str:
    """A resolver for --help: what `group=` can be, those of its table first, then the other files of its folder."""
    tables: dict[str, Mapping[str, Any]] = {"stage": STAGES, "codec": CODECS, "engine": ENGINES}
    files = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    return ", ".join(dict.fromkeys([*tables.get(group, ()), *files]))


def suffix_unless(usual: str, value: str) -> str:
    """A resolver for names in conf/: "-value", or nothing for the usual value."""
    return "" if value == usual else f"-{value}"


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
