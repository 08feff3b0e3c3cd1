"""Ranks as forks of one process (fork_server.py): real processes, without three seconds of imports each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from harness.processes import ROOT, Finished, clean_environment


class Forks:
    """The process that forks; ranks are `main(arguments)` of a module."""

    def __init__(self, module: str) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "harness.fork_server", module],
            cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, arguments: Sequence[object], env: Mapping[str, str]) -> Forked:
        printed = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - lives as long as the rank
        wish = {"arguments": [*map(str, arguments)], "env": dict(env), "output": printed.name}
        return Forked(self, self.ask(wish), printed)

    def ask(self, wish: dict[str, Any]) -> Any:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(wish) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def close(self) -> None:
        self.server.communicate()


class Forked:
    """One rank, in a process group of its own."""

    def __init__(self, forks: Forks, pid: int, printed: Any) -> None:
        self.forks, self.pid, self.printed = forks, pid, printed
        self.status: int | None = None

    def poll(self) -> int | None:
        """The exit status, if it has ended."""
        if self.status is None:
            self.status = self.forks.ask({"ended": self.pid})
        return self.status

    def output(self) -> str:
        self.printed.seek(0)
        return self.printed.read()

    def kill(self) -> None:
        if self.poll() is None:  # not reaped, so the number is still its own
            with contextlib.suppress(ProcessLookupError):  # just forked: its group is not there yet
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)

    def finished(self) -> Finished:
        """How it ended; it must have."""
        status = self.poll()
        assert status is not None
        return Finished(status, self.output())
