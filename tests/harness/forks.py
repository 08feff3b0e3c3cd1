"""Processes as forks of one that has imported everything (fork_server.py): no seconds of imports for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from harness.processes import ROOT, Finished, Running, clean_environment, slurm_places, wait_for_all


class Forks:
    """The process that forks."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "harness.fork_server"],
            cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Forked:
        """As `python -m module arguments...`, started."""
        printed = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        wish = {"module": module, "arguments": [*map(str, arguments)], "env": dict(env or {})}
        return Forked(self, self.ask(wish | {"output": printed.name}), printed, f"{module} {arguments}")

    def start_on_ranks(self, ranks: int, module: str, *arguments: object) -> list[Forked]:
        """One process per rank as SLURM's `srun --ntasks=ranks` would start them."""
        return [self.start(module, *arguments, env=place) for place in slurm_places(ranks)]

    def run_on_ranks(self, ranks: int, module: str, *arguments: object) -> list[Finished]:
        """As `start_on_ranks`, to the end of every rank."""
        return wait_for_all(self.start_on_ranks(ranks, module, *arguments))

    def succeed_on_ranks(self, ranks: int, module: str, *arguments: object) -> None:
        """As `run_on_ranks`; fails if a rank does."""
        finished = self.run_on_ranks(ranks, module, *arguments)
        said = "\n".join(process.output for process in finished)
        assert [process.status for process in finished] == [0] * ranks, said

    def ask(self, wish: dict[str, Any]) -> Any:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(wish) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def close(self) -> None:
        self.server.communicate()


class Forked(Running):
    """One process, in a process group of its own."""

    def __init__(self, forks: Forks, pid: int, printed: Any, name: str) -> None:
        self.forks, self.pid, self.printed, self.name = forks, pid, printed, name
        self.status: int | None = None

    def __str__(self) -> str:
        return self.name

    def poll(self) -> int | None:
        if self.status is None:
            self.status = self.forks.ask({"ended": self.pid})
        return self.status

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:  # not reaped, so the number is still its own
            os.kill(self.pid, number)

    def output(self) -> str:
        self.printed.seek(0)
        return self.printed.read()

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # just forked: its group is not there yet
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
