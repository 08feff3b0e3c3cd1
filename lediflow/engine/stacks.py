"""Where every thread of this process stands, as text files: what to read when a run hangs."""

from __future__ import annotations

import faulthandler
from datetime import UTC, datetime
from pathlib import Path


def dump_stacks(folder: Path, rank: int, title: str) -> None:
    """Append the Python stacks of all threads to `<time>-rank-<rank>.txt`."""
    folder.mkdir(exist_ok=True)
    time_of_day = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    with (folder / f"{time_of_day}-rank-{rank}.txt").open("a") as file:
        file.write(f"{title}\n\n")
        file.flush()  # faulthandler writes past Python's buffer
        faulthandler.dump_traceback(file, all_threads=True)


class HeldStacks:
    """Stacks that C code writes to `path` unless it is put off in time: for a thread whose interpreter is held.

    Foreign code that holds Python's lock stops every Python thread, also the one that would dump stacks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w")

    def put_off(self, seconds: float) -> None:
        """Write the stacks in so many seconds, unless put off again."""
        faulthandler.dump_traceback_later(seconds, file=self.file)

    def close(self) -> None:
        """Never write them; a file without stacks is removed."""
        faulthandler.cancel_dump_traceback_later()
        self.file.close()
        if self.path.stat().st_size == 0:
            self.path.unlink()
