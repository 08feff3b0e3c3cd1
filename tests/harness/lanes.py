"""Which tests run on every save, and the guard that keeps that lane free of processes.

`make test-fast` leaves out two markers: `processes`, tests that start Python interpreters or fork, and `slow`. Folders
of such tests, and tests with the fixture `forks`, get the marker here; other tests declare it themselves. A test with
neither that starts a process fails, in every lane, so that none can be forgotten; a slow one may, since the compiler of
models starts interpreters by itself. Programs that end in milliseconds (git, a shell, the stand-ins for SLURM's
commands) are not counted.

Files with such tests run first: a long file that started last would keep one worker busy while the others are idle.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
MARKERS_OF_FOLDERS = {"distributed": "processes", "cluster": "processes", "end_to_end": "slow"}
LEFT_OUT = ("processes", "slow")  # of `make test-fast`
FORKS = ("os.fork", "os.forkpty", "os.spawn", "os.system")
STARTS = ("subprocess.Popen", "os.posix_spawn")  # fine for other programs, such as compilers of kernels
INTERPRETERS = ("python", "torchrun")


class ProcessGuard:
    """A pytest plugin: marks folders, and fails tests that start processes without the marker `processes`."""

    def __init__(self) -> None:
        self.is_on_guard = False
        self.refused: list[str] = []  # of the running test; an exception in a thread would not reach it

    def pytest_configure(self, config: pytest.Config) -> None:
        """Audit hooks stay until the interpreter ends; this one does nothing outside of unmarked tests."""
        sys.addaudithook(self.audit)
        spawn = multiprocessing.util.spawnv_passfds  # raises no audit event

        def guarded_spawn(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
            self.refuse(f"multiprocessing: {path!r}")
            return spawn(path, args, passfds)

        multiprocessing.util.spawnv_passfds = guarded_spawn

    @pytest.hookimpl(tryfirst=True)  # before -m selects
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for folder, marker in MARKERS_OF_FOLDERS.items():
                if TESTS / folder in item.path.parents:
                    item.add_marker(marker)
            if "forks" in item.fixturenames:
                item.add_marker("processes")
        are_long = {item.path: False for item in items}
        for item in items:
            are_long[item.path] |= is_left_out(item)
        items.sort(key=lambda item: not are_long[item.path])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.is_on_guard = not is_left_out(item)
        self.refused.clear()
        try:
            return (yield)
        finally:
            self.is_on_guard = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        result = yield
        if self.refused:
            pytest.fail(self.refused[0], pytrace=False)
        return result

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in FORKS or (event in STARTS and is_interpreter(args[1])):
            self.refuse(f"{event}: {args[1] if event in STARTS else args}")

    def refuse(self, what: str) -> None:
        if self.is_on_guard:
            self.refused.append(f"starts a process without the marker `processes`: {what}")
            pytest.fail(self.refused[-1])


def is_left_out(item: pytest.Item) -> bool:
    """Whether `make test-fast` leaves the test out."""
    return any(item.get_closest_marker(name) for name in LEFT_OUT)


def is_interpreter(command: str | bytes | Path | Sequence[str | bytes | Path]) -> bool:
    """Whether a command, as subprocess takes it, starts Python."""
    first = command if isinstance(command, (str, bytes, Path)) else command[0]
    text = first.decode() if isinstance(first, bytes) else str(first)
    return Path(text.split()[0]).name.startswith(INTERPRETERS)
