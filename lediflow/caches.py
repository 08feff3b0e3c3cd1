"""The user's cache folder: what can be made again, and takes long enough to be kept.

    inductor    PyTorch's compiled code, and the measured attention routes
    packages    networks compiled ahead of time (sampling/runtime/packages.py)

`LEDIFLOW_CACHE` names another folder than `~/.cache/lediflow`. PyTorch's own default for compiled code is below /tmp,
which many systems empty at a restart.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


def cache_folder() -> Path:
    """LEDIFLOW_CACHE, else `lediflow` in the user's cache folder."""
    named = os.environ.get("LEDIFLOW_CACHE")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lediflow"
    )


def compile_cache() -> Path:
    """Where PyTorch keeps compiled code: TORCHINDUCTOR_CACHE_DIR, else in the cache folder."""
    return Path(os.environ.get(INDUCTOR) or cache_folder() / "inductor")


def keep_compiled(env: MutableMapping[str, str] = os.environ) -> None:
    """Let PyTorch keep compiled code in the cache folder; a folder that cannot be written leaves PyTorch's default."""
    if INDUCTOR in env:
        return
    folder = compile_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        env[INDUCTOR] = str(folder)
