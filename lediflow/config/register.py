"""Names under which Hydra finds the schemas; YAML files in conf/ only choose values."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from lediflow.config import schema
from lediflow.stages.auxiliary import AuxiliaryStageConfig
from lediflow.stages.flow import FlowStageConfig
from lediflow.stages.latent_sampler import LatentSamplerStageConfig


def register_schemas() -> None:
    """Idempotent."""
    store = ConfigStore.instance()
    for command in ("train", "prepare", "encode", "sample", "evaluate", "submit"):
        store.store(name=f"{command}_schema", node=getattr(schema, f"{command.capitalize()}Command"))
    for stage in (AuxiliaryStageConfig, FlowStageConfig, LatentSamplerStageConfig):
        store.store(group="stage", name=f"{stage.name}_schema", node=stage)
