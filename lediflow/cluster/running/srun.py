"""srun: starts one process for each rank, and tells what became of those that cannot tell it themselves."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.incarnation import Incarnation
from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.running.ends import End, told_by_srun
from lediflow.engine.ranks import SLURM_PORTS

BEYOND_KILL_WAIT_SECONDS = 15  # after SLURM has killed what did not end by itself
FAILED_STATUS = 1


class Srun:
    """One step of all ranks. `.told`: what srun said of single ones, in its order."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.command, self.variables = command, variables
        self.told: list[End] = []

    def run(self) -> int:
        """Its exit status. What it says is passed on."""
        environment = {**os.environ, **self.variables}
        with subprocess.Popen(self.command, stderr=subprocess.PIPE, env=environment) as srun:
            listener = threading.Thread(target=self._listen, args=(srun.stderr,), daemon=True)
            listener.start()
            status = self._wait(srun, patience_seconds=slurm.kill_wait() + BEYOND_KILL_WAIT_SECONDS)
            listener.join(timeout=5)
        return status if status >= 0 else 128 - status

    def _wait(self, srun: subprocess.Popen[bytes], patience_seconds: int) -> int:
        """When a rank has failed srun ends the others, but of a rebooted node's it waits to hear in vain."""
        since_failure = 0
        while since_failure < patience_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return srun.wait(timeout=1)
            since_failure += bool(self.told)
        print(f"srun still waits for ranks {patience_seconds} s after others failed", file=sys.stderr)
        srun.kill()
        srun.wait()
        return FAILED_STATUS

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            if end := told_by_srun(line.decode(errors="replace")):
                self.told.append(end)
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def srun_command(folder: JobFolder, here: Incarnation, config: SlurmConfig) -> list[str]:
    """One process per rank. srun no longer takes --cpus-per-task from the job (since SLURM 22.05)."""
    return [
        "srun",
        "--kill-on-bad-exit=1",
        f"--ntasks={here.ranks}",
        f"--ntasks-per-node={config.tasks_per_node}",
        f"--cpus-per-task={config.cpus_per_task}",
        *config.srun_args,
        *[sys.executable, "-u", "-m", "lediflow.cluster.running.task", str(folder.root)],
    ]


def meeting_point(nodes: list[str], here: Incarnation) -> Mapping[str, str]:
    """Where the ranks find each other: the first node, which is this one, and a port that is free on it now."""
    first = int("".join(filter(str.isdigit, here.job)) or 0) + here.restart
    for offset in range(len(SLURM_PORTS)):
        port = SLURM_PORTS[(first + offset) % len(SLURM_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return {"MASTER_ADDR": nodes[0] if nodes else "127.0.0.1", "MASTER_PORT": str(port)}
    return {}
