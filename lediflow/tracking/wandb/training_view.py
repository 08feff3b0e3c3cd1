"""The W&B view of a training: `lediflow.sync` as a process of its own, which follows the event log.

Training only writes its log. The follower reads it, so that nothing that W&B does or fails to do (an outage, a full
quota, a killed wandb-core, a server that is silent) reaches the training: recording an event costs a comparison. The
follower has a session of its own, so Ctrl-C reaches it as the end of the training; it ends when the training closes
its standard input or is killed.

Offline nothing is written while training: `python -m lediflow.sync RUN` writes the W&B run at any time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lediflow.errors import UserError
from lediflow.tracking.wandb.client import INSTALL, check_mode
from lediflow.tracking.wandb.record import Target

log = logging.getLogger(__name__)

END_SECONDS = 12.0  # for the follower to send the last events and end, after the training
LOOK_SECONDS = 30.0  # between two looks whether the follower lives


def check_wandb(target: Target) -> None:
    """UserError for a mode that does not exist, or without the package."""
    check_mode(target.mode)
    with contextlib.suppress(ValueError):  # an entry of sys.modules without a specification
        if importlib.util.find_spec("wandb") is not None:
            return
    raise UserError(
        f"tracking.wandb=true, but wandb is not installed; `{INSTALL}`, or set tracking.wandb=false"
    )


def follower_command(folder: Path, target: Target) -> list[str]:
    """The command that follows the run of the process that starts it."""
    words = [sys.executable, "-m", "lediflow.sync", str(folder.absolute()), "--until-eof"]
    words += ["--mode", target.mode, "--project", target.project]
    return words + (["--entity", target.entity] if target.entity else [])


class OfflineHint:
    """The view of an offline run: says at the end how to write it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        pass

    def close(self) -> None:
        log.info("to write the W&B run: python -m lediflow.sync %s", shlex.quote(str(self.folder)))


class Follower:
    """The view of an online run: starts the process that sends it, and ends it at the end of the training."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.looked = time.monotonic()
        self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Nothing but a look, once in a while, whether the follower lives: it reads events from the log."""
        now = time.monotonic()
        if self.process is not None and now - self.looked > LOOK_SECONDS:
            self.looked = now
            if self.process.poll() is not None:
                self.leave(self.process)

    def close(self) -> None:
        """Wait until the last events are sent, at most END_SECONDS."""
        if (process := self.process) is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        self.leave(process)

    def leave(self, process: subprocess.Popen[bytes]) -> None:
        """Forget the follower, which is killed if it still runs; say so if it did not send everything."""
        self.process = None
        status = process.poll()
        if status is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status != 0:
            log.warning(
                "W&B did not get everything; the event log has it: python -m lediflow.sync %s --mode online sends it",
                shlex.quote(str(self.folder)),
            )
