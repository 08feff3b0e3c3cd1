"""Stop signals that arrive while a command still imports its modules count like later ones.

Imports take seconds, from a cluster's file system many. Nothing heavy is imported here. Ctrl-C keeps its default:
there is nothing to save yet.
"""

from __future__ import annotations

import signal
from types import FrameType

noted: list[signal.Signals] = []


def note_signals() -> None:
    """From now on append TERM, USR1 and USR2 to `noted`, until StopRequest installs its handlers."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _note)


def _note(number: int, frame: FrameType | None) -> None:
    noted.append(signal.Signals(number))
