"""Failing reads are retried, hanging ones abandoned; the last error names request, attempts and cause."""

import threading

import pytest
from harness.patience import wait_until
from harness.storages import CONTENTS, Watched, part

from lediflow.data.storage import Read, retry
from lediflow.data.storage.retry import RetryingStorage
from lediflow.errors import UserError

BROKEN = OSError(5, "Input/output error")


def patient(folder, attempts=3, timeout_seconds=None, **trouble):
    source = Watched(folder, **trouble)
    return RetryingStorage(source, attempts, timeout_seconds, pause_seconds=0.001), source


@pytest.mark.parametrize("timeout_seconds", [None, 60.0])
def test_a_read_that_fails_twice_succeeds_at_the_third_attempt(folder, timeout_seconds):
    storage, source = patient(folder, failures=[BROKEN, BROKEN], timeout_seconds=timeout_seconds)
    assert part(storage, "a.tar", 3, 5) == CONTENTS["a.tar"][3:8]
    assert len(source.calls) == 3


def test_the_pause_doubles_up_to_a_limit(folder, monkeypatch):
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    storage = RetryingStorage(Watched(folder, failures=[BROKEN] * 7), attempts=8, pause_seconds=1.0)
    storage.read("a.tar")
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_the_last_failure_reports_request_response_and_remedy(folder):
    storage, source = patient(folder, failures=[BROKEN] * 9)
    with pytest.raises(
        UserError, match=r"cannot read .*/a.tar: Input/output error; 3 attempts failed.*repeat"
    ):
        storage.read("a.tar")
    assert len(source.calls) == 3


def test_a_missing_file_is_not_tried_again(folder):
    storage, source = patient(folder)
    with pytest.raises(UserError, match=r"cannot read .*/none.tar: No such file or directory"):
        storage.read("none.tar")
    assert len(source.calls) == 1


def test_a_read_that_hangs_is_abandoned_and_retried(folder):
    hang = threading.Event()
    storage, source = patient(folder, hang=hang, timeout_seconds=0.2)
    assert part(storage, "b.tar", 0, 3) == b"bbb"
    assert len(source.calls) == 2
    hang.set()


def test_an_abandoned_read_writes_into_no_buffer_in_use(folder):
    hang = threading.Event()
    storage, _ = patient(folder, hang=hang, timeout_seconds=0.2)
    buffer = bytearray(3)
    storage.read_into([Read("b.tar", 0, memoryview(buffer))])
    buffer[:] = b"xyz"  # the batch has moved on
    hang.set()
    assert wait_until(lambda: all(thread.name != "attempt" for thread in threading.enumerate()), seconds=10)
    assert buffer == b"xyz"
