"""The studio's private folder: uploads and pictures, removed when the command ends.

SIGTERM and SIGHUP end the command like Ctrl-C, so the folder is removed then, too. A command that was killed leaves its
folder behind, and the next start removes it: unlike that of a running command, it is not locked.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lediflow.errors import disk_errors_explained

PREFIX, LOCK = "lediflow-studio-", ".lock"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user can read, for temporary files of any origin; removed at the end.

    Signals that end the process raise KeyboardInterrupt inside the block, and are ignored while the folder is removed.
    """
    parent = tempfile.gettempdir()
    remove_abandoned(Path(parent))
    with disk_errors_explained(Path(parent)):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    lock = (folder / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        tempfile.tempdir = parent
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders of studios that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
