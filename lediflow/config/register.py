"""Tells Hydra where the YAML files and the schemas are; the files only choose values."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hydra.core.config_store import ConfigStore

import lediflow
from lediflow.config.schema import COMMANDS, STAGES


def conf_folder() -> Path:
    """The folder conf/: next to the package in a checkout, inside it when installed from a wheel."""
    package = Path(lediflow.__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


@cache
def register_schemas() -> None:
    """Register all schemas with Hydra, once per process."""
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(name=f"{name}_schema", node=command)
    for stage in STAGES:
        store.store(group="stage", name=f"{stage.name}_schema", node=stage)
