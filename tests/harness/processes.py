"""Real processes: `python -m lediflow.X`, one alone or several as ranks, with what they printed and how they ended.

Nothing outlives its time limit: every process that is left prints the stacks of its threads and is killed with its
group, and the test fails with what all of them printed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.patience import wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 120.0  # of an idle machine; far above what any of these takes, and below pytest's own limit
STACKS_SECONDS = 5.0  # for a process to print its stacks
# the launchers' own variables would make a child believe that it is a rank of the process that runs the tests
PORTS = range(10_000, 20_000)  # none that lediflow.engine.ranks chooses by itself
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Finished:
    """How a process ended."""

    status: int
    output: str  # stdout and stderr, as a terminal would show them


class Running(ABC):
    """A process that a test started and must wait for."""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit status, if it has ended."""

    @abstractmethod
    def send(self, number: signal.Signals) -> None: ...

    @abstractmethod
    def output(self) -> str: ...

    @abstractmethod
    def kill(self) -> None:
        """End its whole process group, if it has not ended."""

    def wait(self, seconds: float = SECONDS) -> Finished:
        return wait_for_all([self], seconds)[0]

    def has_ended(self) -> bool:
        return self.poll() is not None

    def wait_until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Until the condition holds; fails if the process ends before, or time runs out."""
        is_met = False

        def is_decided() -> bool:
            nonlocal is_met
            has_ended = self.has_ended()  # asked before the condition, which its last act may fulfil
            is_met = condition()
            return is_met or has_ended

        wait_until(is_decided, seconds)
        if not is_met:
            self.kill()
            raise AssertionError(f"{self} never got there:\n{self.output()}")

    def abort(self) -> None:
        """End it so that Python prints the stacks of its threads (`faulthandler`), if it has not ended."""
        if self.poll() is None:
            self.send(signal.SIGABRT)
            wait_until(self.has_ended, STACKS_SECONDS)
        self.kill()

    def finished(self) -> Finished:
        """How it ended; it must have."""
        status = self.poll()
        assert status is not None
        return Finished(status, self.output())


class Started(Running):
    """A process that is still running, in a group of its own."""

    def __init__(self, arguments: list[str], env: Mapping[str, str] | None = None) -> None:
        # a pipe that is not read would block its writer
        self.printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=clean_environment() | dict(env or {}),
            stdout=self.printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __str__(self) -> str:
        return str(self.process.args)

    def poll(self) -> int | None:
        return self.process.poll()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_delivery(self, number: signal.Signals) -> None:
        """Until the process has received the signal; before, a second one of its kind would be merged into it.

        Only Linux shows what is pending; elsewhere it returns at once.
        """

        def is_delivered() -> bool:
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return True
            pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
            return not pending >> (number - 1) & 1

        wait_until(is_delivered, SECONDS, pause_seconds=0.002)

    def output(self) -> str:
        self.printed.seek(0)
        return self.printed.read()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Started:
    """`python -m module arguments...`, started."""
    return Started([sys.executable, "-m", module, *map(str, arguments)], env)


def run(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
    """`python -m module arguments...`, to its end."""
    return start(module, *arguments, env=env).wait()


def torchrun(ranks: int, module: str, *arguments: object) -> Finished:
    """`torchrun --nproc_per_node=ranks -m module arguments...`, to its end."""
    launcher = [f"--nproc_per_node={ranks}", "--master_addr=127.0.0.1", f"--master_port={free_port()}", "-m"]
    return run("torch.distributed.run", *launcher, module, *arguments)


def start_on_ranks(ranks: int, module: str, *arguments: object) -> list[Started]:
    """One process per rank as SLURM's `srun --ntasks=ranks` would start them."""
    return [start(module, *arguments, env=place) for place in slurm_places(ranks)]


def slurm_places(ranks: int) -> list[dict[str, str]]:
    """What SLURM tells each task in its environment."""
    job = {
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(ranks)]


def wait_for_all(started: Sequence[Running], seconds: float = SECONDS) -> list[Finished]:
    """The end of every process; none is left behind if one of them hangs."""
    try:
        if not wait_until(lambda: all(process.has_ended() for process in started), seconds):
            left = [process for process in started if not process.has_ended()]
            for process in left:
                process.abort()
            said = "\n".join(f"--- {process}:\n{process.output()}" for process in started)
            raise AssertionError(f"{len(left)} of {len(started)} did not end in {seconds} s\n{said}")
        return [process.finished() for process in started]
    finally:
        for process in started:
            process.kill()


def clean_environment() -> dict[str, str]:
    """This process's environment without launchers' variables; one thread a process, to leave the others room."""
    kept = {
        key: value for key, value in os.environ.items() if key not in FOREIGN and not key.startswith("SLURM_")
    }
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONFAULTHANDLER": "1"}
    return kept | own | {"PYTHONPATH": path}


def free_port() -> int:
    """A port to listen at later. Below the range from which systems give ports to outgoing connections (32768 and up):
    one of that range may be in use by the time its listener starts, and the ranks then wait for each other."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
