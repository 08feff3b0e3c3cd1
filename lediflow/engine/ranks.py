"""Who am I among the processes of this run?

Read from the environment of whoever started us: torchrun (RANK, WORLD_SIZE, LOCAL_RANK), one SLURM task per GPU
(SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID), or nobody (one process).
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from lediflow.errors import UserError

DEFAULT_PORT = 29_400
# Below the ephemeral range (32768 and up), so that no outgoing connection can sit on it.
SLURM_PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class Ranks:
    """One process's place: `rank` of `world_size`, the `local_rank`-th of its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = DEFAULT_PORT

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def environment(self) -> dict[str, str]:
        """The variables torch.distributed and DeepSpeed read."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


def find_ranks(env: Mapping[str, str] = os.environ) -> Ranks:
    """The place of this process, from torchrun's variables, else SLURM's, else alone on a free port."""
    if "RANK" in env and "WORLD_SIZE" in env:
        return _from_torchrun(env)
    if "SLURM_PROCID" in env and int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in env:
        return _from_slurm(env)
    return Ranks(master_port=_free_port())


def _from_torchrun(env: Mapping[str, str]) -> Ranks:
    return Ranks(
        rank=int(env["RANK"]),
        world_size=int(env["WORLD_SIZE"]),
        local_rank=int(env.get("LOCAL_RANK", env["RANK"])),
        master_addr=env.get("MASTER_ADDR", "127.0.0.1"),
        master_port=int(env.get("MASTER_PORT", DEFAULT_PORT)),
    )


def _from_slurm(env: Mapping[str, str]) -> Ranks:
    job = int(env.get("SLURM_JOB_ID", "0"))
    return Ranks(
        rank=int(env["SLURM_PROCID"]),
        world_size=int(env["SLURM_NTASKS"]),
        local_rank=int(env.get("SLURM_LOCALID", "0")),
        master_addr=env.get("MASTER_ADDR") or _first_slurm_host(env.get("SLURM_JOB_NODELIST", "")),
        # every task of a job computes the same port; two jobs on one node rarely share it
        master_port=int(env.get("MASTER_PORT", SLURM_PORTS[job % len(SLURM_PORTS)])),
    )


def _first_slurm_host(nodelist: str) -> str:
    command = ["scontrol", "show", "hostnames", nodelist]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, IndexError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"`{' '.join(command)}` failed ({error}), so this task cannot tell where the first one runs; "
            "set MASTER_ADDR to the first node's name (inside a container SLURM's own tools are often missing)"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
