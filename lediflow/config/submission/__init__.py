"""From a command line to jobs on SLURM: requests and sweeps, pipelines of tasks, Hydra launchers."""

from __future__ import annotations

from pathlib import Path


def register_launchers(presets: Path) -> None:
    """Register the launchers of lediflow.config.submission.launchers with Hydra; `presets` is the folder conf/slurm."""
    from lediflow.config.submission import launchers  # imported here because of its many dependencies

    launchers.register_launchers(presets)
