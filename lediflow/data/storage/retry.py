"""Another storage with retries: a read that fails is repeated after a growing pause, one that hangs is abandoned.

Missing files and denied permissions are not retried. When the last attempt fails, the error says what was requested,
how often, and what went wrong.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from lediflow.data.storage.folders import Read, Storage
from lediflow.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
LONGEST_PAUSE_SECONDS = 30.0


class RetryingStorage:
    """`source` with up to `attempts` attempts; with a time limit, each runs in a thread of its own."""

    def __init__(
        self, source: Storage, attempts: int, timeout_seconds: float | None = None, pause_seconds: float = 1.0
    ):
        self.source, self.attempts = source, attempts
        self.timeout_seconds, self.pause_seconds = timeout_seconds, pause_seconds

    @property
    def where(self) -> str:
        return self.source.where

    def read(self, name: str) -> bytes:
        return self._with_retries(name, lambda: self.source.read(name))

    def read_into(self, reads: Sequence[Read]) -> None:
        if not reads:
            return
        if self.timeout_seconds is None:
            return self._with_retries(reads, lambda: self.source.read_into(reads))
        for read, content in zip(
            reads, self._with_retries(reads, lambda: self._read_apart(reads)), strict=True
        ):
            read.buffer[:] = content

    def copy_to(self, name: str, path: Path) -> None:
        self._with_retries(name, lambda: self.source.copy_to(name, path))

    def expect(self, names: Sequence[str]) -> None:
        self.source.expect(names)

    def _read_apart(self, reads: Sequence[Read]) -> list[memoryview]:
        """Read into separate buffers: an abandoned attempt may still write to its own."""
        apart = [read._replace(buffer=memoryview(bytearray(len(read.buffer)))) for read in reads]
        self.source.read_into(apart)
        return [read.buffer for read in apart]

    def _with_retries(self, wanted: str | Sequence[Read], attempt: Callable[[], T]) -> T:
        for number in range(1, self.attempts + 1):
            try:
                return within(self.timeout_seconds, attempt)
            except HOPELESS as error:
                raise UserError(f"cannot read {self.where}/{_names(wanted)}: {_reason(error)}") from error
            except UserError:
                raise
            except Exception as error:  # each of fsspec's packages has exceptions of its own
                if number == self.attempts:
                    raise UserError(self._failure(_names(wanted), error)) from error
                pause = min(self.pause_seconds * 2 ** (number - 1), LONGEST_PAUSE_SECONDS)
                log.warning(
                    "reading %s/%s failed (%s); attempt %d of %d in %.1f s",
                    self.where, _names(wanted), _reason(error), number + 1, self.attempts, pause,
                )  # fmt: skip
                time.sleep(pause)
        raise AssertionError("attempts is at least 1")

    def _failure(self, name: str, error: Exception) -> str:
        limit = f" of up to {self.timeout_seconds:g} s each" if self.timeout_seconds else ""
        return (
            f"cannot read {self.where}/{name}: {_reason(error)}; {self.attempts} attempts{limit} failed. Check that "
            "the storage answers, then repeat the command (a run continues from its last checkpoint), or raise "
            "data.reading.attempts and data.reading.timeout_seconds"
        )


def within(seconds: float | None, action: Callable[[], T]) -> T:
    """The action's result, or TimeoutError; one that hangs is left in a daemon thread, which no exit waits for."""
    if seconds is None:
        return action()
    answer: Future[T] = Future()
    threading.Thread(target=_settle, args=(answer, action), name="attempt", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _settle(answer: Future[T], action: Callable[[], T]) -> None:
    try:
        answer.set_result(action())
    except BaseException as error:
        answer.set_exception(error)


def _names(wanted: str | Sequence[Read]) -> str:
    return wanted if isinstance(wanted, str) else ", ".join(sorted({read.name for read in wanted}))


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
