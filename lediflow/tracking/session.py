"""Where an attempt to train runs, and with which code: what the events `start` and `resume` say about it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lediflow
from lediflow.tracking.secrets import without_secrets


def session_facts(env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Commit, release and command of this process, its host, and id and restart of its SLURM job, if it is one."""
    words = ["python", *sys.orig_argv[1:]]
    facts: dict[str, Any] = {
        "commit": commit(),
        "version": lediflow.__version__,
        "command": shlex.join(without_secrets(words, env)),
        "host": socket.gethostname(),
    }
    if "SLURM_JOB_ID" in env:
        array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
        facts["job"] = f"{array}_{task}" if array and task else env["SLURM_JOB_ID"]
        facts["restart"] = int(env.get("SLURM_RESTART_COUNT", "0"))
    return facts


def commit() -> str:
    """The commit of the running code, with "-dirty" if files differ from it.

    Outside a checkout, as in a container, the value of LEDIFLOW_COMMIT, or else the release.
    """
    folder = Path(lediflow.__file__).parent
    git = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LEDIFLOW_COMMIT") or f"release {lediflow.__version__}"
