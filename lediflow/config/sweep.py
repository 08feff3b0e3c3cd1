"""Run folders of a sweep: jobs that differ in more than their folder's name says must not share it."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

# what the default folder's name already holds, and what changes nothing of a run's result
NAMED = ("name", "stage", "seed", "prior", "experiment")
HARMLESS = (
    "data.path",
    "parent",
    "paths",
    "engine",
    "tracking",
    "hydra",
    "dry_run",
    "dry_run_ranks",
    "nodes",
)


def separate_jobs(config: DictConfig) -> None:
    """In a multirun without an explicit run=, append the other overrides to the run folder's name."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return
    suffix = folder_suffix(list(HydraConfig.get().overrides.task))
    if suffix:
        with open_dict(config):
            config.run = f"{config.run},{suffix}"


def folder_suffix(overrides: list[str]) -> str:
    """The overrides that the default folder's name does not tell apart; empty if run= is among them."""
    keys = {override: override.lstrip("+~").partition("=")[0] for override in overrides}
    if "run" in keys.values():
        return ""
    silent = (*NAMED, *HARMLESS)
    telling = [
        override
        for override, key in keys.items()
        if not any(key == name or key.startswith(name + ".") for name in silent)
    ]
    return ",".join(sorted(telling)).replace("/", "_")
