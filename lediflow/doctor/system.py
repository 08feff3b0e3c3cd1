"""Checks of the operating system: memory, folders, limits, SLURM and W&B."""

from __future__ import annotations

import netrc
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lediflow.caches import compile_cache
from lediflow.doctor.finding import Finding, Level, ok
from lediflow.host_memory import free_memory
from lediflow.text import GB, GIB, gibibytes, gigabytes

LEAST_MEMORY, LEAST_SHARED = 4 * GIB, GIB
LEAST_DISK = 5 * GB
LEAST_FILES = 1024
ADMINISTRATORS = "ask the cluster's administrators; without it runs start on this machine only"


def check_memory(free: int | None = None) -> Finding:
    """Main memory that this process may use."""
    free = free_memory() if free is None else free
    if free < LEAST_MEMORY:
        return Finding(
            "main memory",
            Level.WARNING,
            f"{gibibytes(free)} GiB free",
            f"training takes {LEAST_MEMORY // GIB} GiB and more; end other processes, or raise the job's limit",
            is_of_node=True,
        )
    return ok("main memory", f"{gibibytes(free)} GiB free, {len(os.sched_getaffinity(0))} CPU cores")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Shared memory, in which the processes of a data loader and NCCL pass data; none where there is no such folder."""
    if not folder.is_dir():
        return []
    total = shutil.disk_usage(folder).total
    if total < LEAST_SHARED:
        return [
            Finding(
                "shared memory",
                Level.WARNING,
                f"{gibibytes(total)} GiB in {folder}",
                "batches and NCCL need more: docker run --shm-size=8g, or --ipc=host",
            )
        ]
    return [ok("shared memory", f"{gibibytes(total)} GiB in {folder}")]


def check_folders() -> list[Finding]:
    """The current folder, where runs are written; that of compiled code; and that of temporary files."""
    folders = {
        "current folder": (Path.cwd(), False),
        "compiled code": (compile_cache(), True),
        "temporary files": (Path(tempfile.gettempdir()), False),
    }
    return [check_folder(name, path, is_loaded=loaded) for name, (path, loaded) in folders.items()]


def check_folder(name: str, path: Path, *, is_loaded: bool = False) -> Finding:
    """Whether files can be written there, and loaded as code if `is_loaded`; and the space left."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return Finding(
            name,
            Level.WARNING if is_loaded else Level.FAULT,
            f"{path} cannot be written: {error.strerror}",
            "set LEDIFLOW_CACHE to another folder"
            if is_loaded
            else "free space, or change permissions or folder",
        )
    if is_loaded and os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0):
        return Finding(
            name,
            Level.WARNING,
            f"{path} allows no code to be loaded (noexec)",
            "set LEDIFLOW_CACHE to a folder elsewhere, or compiling fails",
        )
    free = shutil.disk_usage(path).free
    if free < LEAST_DISK:
        return Finding(
            name, Level.WARNING, f"{gigabytes(free)} free in {path}", "free some space: checkpoints need it"
        )
    return ok(name, f"{path}, {gigabytes(free)} free")


def check_limits() -> Finding:
    """The number of files that a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < LEAST_FILES:
        return Finding(
            "open files",
            Level.WARNING,
            f"{soft} at most",
            f"ulimit -n {LEAST_FILES if hard < 0 else min(hard, 65536)}",
        )
    return ok("open files", f"{soft:,} at most" if soft >= 0 else "unlimited")


def check_slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return ok("SLURM", "not installed here: runs start on this machine only")
    try:
        said = subprocess.run(
            ["sbatch", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("SLURM", Level.WARNING, f"sbatch does not answer: {error}", ADMINISTRATORS)
    if said.returncode:
        reason = (said.stderr.strip() or f"exit status {said.returncode}").splitlines()[0]
        return Finding("SLURM", Level.WARNING, f"sbatch fails: {reason}", ADMINISTRATORS)
    return ok("SLURM", said.stdout.strip())


def check_wandb(environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether W&B knows who is asking; without it runs are kept for `wandb sync`."""
    if environment.get("WANDB_API_KEY"):
        return ok("W&B", "WANDB_API_KEY is set")
    try:
        is_known = "api.wandb.ai" in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        is_known = False
    return ok("W&B", "logged in" if is_known else "not logged in: runs stay offline until `wandb login`")
