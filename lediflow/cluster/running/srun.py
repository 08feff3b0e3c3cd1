"""srun: starts one process per rank, and reports ranks that were killed and could not write their exit records."""

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
from lediflow.cluster.jobs import JobFolder, SlurmConfig
from lediflow.cluster.running.rank_exits import Attempt, RankExit, exit_from_srun
from lediflow.engine.ranks import SLURM_PORTS

BEYOND_KILL_WAIT_SECONDS = 15  # after SLURM has killed the ranks that did not end by themselves
FAILED_STATUS = 1


class Srun:
    """One job step with all ranks. `.exits`: ranks that srun reported as failed, in its order."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.command, self.variables = command, variables
        self.exits: list[RankExit] = []

    def run(self) -> int:
        """Run to the end; the exit status, as a shell has it. srun's messages are passed on to stderr."""
        environment = {**os.environ, **self.variables}
        with subprocess.Popen(self.command, stderr=subprocess.PIPE, env=environment) as srun:
            listener = threading.Thread(target=self._listen, args=(srun.stderr,), daemon=True)
            listener.start()
            status = self._wait(srun, patience_seconds=slurm.kill_wait() + BEYOND_KILL_WAIT_SECONDS)
            listener.join(timeout=5)
        return status if status >= 0 else 128 - status

    def _wait(self, srun: subprocess.Popen[bytes], patience_seconds: int) -> int:
        """Wait for srun; end it `patience_seconds` after the first failure.

        srun ends the other ranks once one has failed, but waits forever for those of a node that was rebooted.
        """
        since_failure = 0
        while since_failure < patience_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return srun.wait(timeout=1)
            since_failure += bool(self.exits)
        print(
            f"srun is ended: it still waits for ranks {patience_seconds} s after others failed",
            file=sys.stderr,
        )
        srun.kill()
        srun.wait()
        return FAILED_STATUS

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            if exit_ := exit_from_srun(line.decode(errors="replace")):
                self.exits.append(exit_)
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def srun_command(folder: JobFolder, attempt: Attempt, config: SlurmConfig) -> list[str]:
    """The command line. --cpus-per-task is repeated: since SLURM 22.05 srun no longer takes it from the job."""
    return [
        "srun",
        "--kill-on-bad-exit=1",
        f"--ntasks={attempt.ranks}",
        f"--ntasks-per-node={config.tasks_per_node}",
        f"--cpus-per-task={config.cpus_per_task}",
        *config.srun_args,
        *[sys.executable, "-u", "-m", "lediflow.cluster.running.task", str(folder.root)],
    ]


def rendezvous_variables(nodes: list[str], attempt: Attempt) -> Mapping[str, str]:
    """Address and port at which the ranks connect: the first node, which is this one, and a port that is free now."""
    first = int("".join(filter(str.isdigit, attempt.job)) or 0) + attempt.restart
    for offset in range(len(SLURM_PORTS)):
        port = SLURM_PORTS[(first + offset) % len(SLURM_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return {"MASTER_ADDR": nodes[0] if nodes else "127.0.0.1", "MASTER_PORT": str(port)}
    return {}
