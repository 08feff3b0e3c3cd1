"""Where Hydra finds the YAML files and the schemas; the files only choose values."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hydra.core.config_store import ConfigStore

import lediflow
from lediflow.config.schema import COMMANDS, STAGES


def conf_folder() -> Path:
    """The YAML files: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(lediflow.__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


@cache
def register_schemas() -> None:
    """Once in a process: Hydra keeps them."""
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(name=f"{name}_schema", node=command)
    for stage in STAGES:
        store.store(group="stage", name=f"{stage.name}_schema", node=stage)
