"""This process's place among the processes that were started together, and its device.

The place is read from the environment that the launcher sets: torchrun (RANK, WORLD_SIZE, LOCAL_RANK), srun with one
task per GPU (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID), or nothing (one process). `find_ranks` serves work that forms
a process group and adds the address of rank 0; `find_share` serves independent work that needs no process group, and
counts the jobs of a SLURM array as well.

torch is imported by the functions that choose a device: the supervisor of a job imports this module and starts
without torch.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lediflow.errors import UserError

if TYPE_CHECKING:
    import torch

DEFAULT_PORT = 29_400
ANY_PORT = 0  # whichever is free when rank 0 listens, for a group of one
# Below the ephemeral range (32768 and up), so that no outgoing connection can occupy it.
SLURM_PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class Ranks:
    """One process of a group: `rank` of `world_size`, the `local_rank`-th of its machine; rank 0 listens at master."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = DEFAULT_PORT

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def environment(self) -> dict[str, str]:
        """The variables that torch.distributed and DeepSpeed read."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


@dataclass(frozen=True)
class Share:
    """Every `ranks`-th item of independent work, beginning with `rank`, on the machine's `local_rank`-th device."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0


class _Place(NamedTuple):
    rank: int
    processes: int
    local_rank: int
    launcher: str


def _find_place(env: Mapping[str, str]) -> _Place:
    """The only parser of the launchers' variables."""
    if "RANK" in env and "WORLD_SIZE" in env:
        rank = int(env["RANK"])
        return _Place(rank, int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", rank)), "torchrun")
    # A batch script sees SLURM_PROCID=0 and the SLURM_NTASKS of its whole job, yet is one process. Only srun sets
    # SLURM_STEP_ID.
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        rank, processes = int(env["SLURM_PROCID"]), int(env.get("SLURM_NTASKS", "1"))
        return _Place(rank, processes, int(env.get("SLURM_LOCALID", "0")), "srun")
    return _Place(0, 1, 0, "")


def find_ranks(env: Mapping[str, str] = os.environ) -> Ranks:
    """This process's place in a process group, with the address of rank 0."""
    place = _find_place(env)
    if place.launcher == "torchrun":
        address = env.get("MASTER_ADDR", "127.0.0.1")
        port = int(env.get("MASTER_PORT", DEFAULT_PORT))
    elif place.processes > 1:
        job = int(env.get("SLURM_JOB_ID", "0"))
        address = env.get("MASTER_ADDR") or _first_slurm_host(env.get("SLURM_JOB_NODELIST", ""))
        # Every task of a job computes the same port; two jobs on one node rarely share it.
        port = int(env.get("MASTER_PORT", SLURM_PORTS[job % len(SLURM_PORTS)]))
    else:
        # Also a single task of srun: no other process needs its address, so scontrol need not run. Its port must not
        # be the job's, which another step of the job on the same node may use. `find_share` makes no such distinction,
        # since it has no address: task 0 of 1 has all the work in either case.
        return Ranks(master_port=ANY_PORT)
    return Ranks(place.rank, place.processes, place.local_rank, address, port)


def find_share(env: Mapping[str, str] = os.environ) -> Share:
    """This process's share of independent work; all of it where no launcher started several processes.

    Launchers combine with job arrays (`sbatch --array=0-7`): task p of job j is process j * tasks + p of jobs * tasks.
    """
    place, (job, jobs) = _find_place(env), _in_array(env)
    return Share(job * place.processes + place.rank, jobs * place.processes, place.local_rank)


def _in_array(env: Mapping[str, str]) -> tuple[int, int]:
    """Place in the job array, and its length."""
    if "SLURM_ARRAY_TASK_ID" not in env:
        return 0, 1
    task, first, jobs, step = (
        int(env[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "COUNT", "STEP")
    )
    place, rest = divmod(task - first, step)
    if rest or place >= jobs:
        raise UserError(
            f"task {task} of a job array of {jobs} from {first} in steps of {step} has no place in a row of "
            f"{jobs}; submit an array without gaps (--array=0-{jobs - 1}), or say rank=... ranks=..."
        )
    return place, jobs


def _first_slurm_host(nodelist: str) -> str:
    command = ["scontrol", "show", "hostnames", nodelist]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, IndexError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"`{' '.join(command)}` failed ({error}), so this task cannot tell where the first one runs; "
            "set MASTER_ADDR to the first node's name (inside a container SLURM's own tools are often missing)"
        ) from error


def choose_device(requested: str, local_rank: int = 0, *, option: str = "device") -> torch.device:
    """`auto`: the `local_rank`-th GPU where there is one, else the CPU. UserError for a device that is not there.

    `option` is the name of the option in messages.
    """
    import torch

    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise UserError(f"{option}={requested} is not known to PyTorch; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{option}={requested} was asked for, but this PyTorch ({torch.__version__}) sees no CUDA GPU; "
            f"install a CUDA build of torch, or use {option}=auto"
        )
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The device on which a time was measured: the GPU's product name, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
