"""The sbatch script of a job. It holds all it needs: `sbatch job.sh` submits the job again."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobFolder, JobRecord

LARGEST_SHARE = 0.1  # of the time limit: no warning comes earlier before the end


def render(folder: JobFolder, record: JobRecord, config: SlurmConfig, python: str = sys.executable) -> str:
    """Options, then the shell's part, then the supervisor in the shell's place."""
    options = [option(name, value) for name, value in sbatch_options(folder, record, config).items()]
    lines = [
        "#!/bin/bash",
        *[f"#SBATCH {line}" for line in options],
        *shell_lines(record.snapshot, config),
        f"exec {shlex.join([python, '-u', '-m', 'lediflow.cluster.running.supervise', str(folder.root)])}",
    ]
    return "\n".join(lines) + "\n"


def shell_lines(snapshot: str, config: SlurmConfig) -> list[str]:
    """What the shell does before Python starts."""
    return [
        f"export PYTHONPATH={shlex.quote(snapshot)}${{PYTHONPATH:+:$PYTHONPATH}}",
        *[f"export {name}={shlex.quote(str(value))}" for name, value in environment(config).items()],
        *config.setup,
    ]


def option(name: str, value: Any) -> str:
    """--name, or --name=value as sbatch reads it in a script."""
    return f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}"


def sbatch_options(folder: JobFolder, record: JobRecord, config: SlurmConfig) -> dict[str, Any]:
    """Only what was chosen: the rest is the cluster's."""
    chosen = {name: getattr(config, name) for name in ("partition", "account", "qos", "constraint")}
    chosen |= {name: getattr(config, name) for name in ("reservation", "exclude", "nodes")}
    chosen |= {
        "job-name": record.name,
        "chdir": record.folder,
        # % begins a pattern of SLURM, %% stands for itself
        "output": str(folder.log).replace("%", "%%") + ("/%A_%a.log" if record.array else "/%j.log"),
        "open-mode": "append",  # a requeued job goes on in the same file
        "ntasks-per-node": config.tasks_per_node,
        "cpus-per-task": config.cpus_per_task,
        "gres": f"gpu:{config.gpus_per_node}" if config.gpus_per_node else "",
        "mem": f"{math.ceil(1024 * config.mem_gb)}M" if config.mem_gb else "",
        "time": config.timeout_min,
        "signal": f"USR2@{warning_seconds(config)}",
        "requeue" if config.requeue else "no-requeue": True,
        "array": array_range(record.array, config.array_parallelism),
    }
    return {name: value for name, value in chosen.items() if value} | config.additional_parameters


def warning_seconds(config: SlurmConfig) -> int:
    """A short job is not warned at its start."""
    limit = 60 * config.timeout_min * LARGEST_SHARE if config.timeout_min else math.inf
    return int(max(1, min(config.signal_delay_s, limit)))


def array_range(tasks: int | None, at_once: int) -> str:
    if not tasks:
        return ""
    return f"0-{tasks - 1}" + (f"%{at_once}" if at_once else "")


def environment(config: SlurmConfig) -> Mapping[str, str]:
    """Variables of every rank; what you set yourself wins."""
    network = {
        name: config.interface for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if config.interface
    }
    return {"OMP_NUM_THREADS": str(config.cpus_per_task), **network, **config.environment}


def write_script(folder: JobFolder, record: JobRecord, config: SlurmConfig) -> Path:
    folder.log.mkdir(parents=True, exist_ok=True)
    folder.script.write_text(render(folder, record, config))
    folder.script.chmod(0o755)
    return folder.script
