"""The book of troubles that all ranks read."""

import os

import pytest

from lediflow.engine.observer import TroubleBook
from lediflow.engine.stalls import Trouble

TROUBLE = Trouble(kind="stall", ranks=[1], sentence="rank 1 stays")


@pytest.fixture
def books(tmp_path):
    return [TroubleBook(tmp_path, "session") for _ in range(2)]


def test_the_first_to_write_tells_everybody(books):
    assert [book.write(TROUBLE) for book in books] == [True, False]
    assert [book.next() for book in books] == [TROUBLE] * 2
    assert [book.next() for book in books] == [None] * 2


def test_a_disk_that_was_full_for_a_moment_leaves_nothing_in_the_way(books, monkeypatch):
    class Full:
        def __init__(self, handle, mode):
            os.close(handle)

        def __enter__(self):
            raise OSError(28, "No space left on device")

        def __exit__(self, *error):
            """Never entered."""

    with monkeypatch.context() as full:
        full.setattr("lediflow.engine.observer.os.fdopen", Full)
        with pytest.raises(OSError, match="No space"):
            books[0].write(TROUBLE)
    assert books[1].write(TROUBLE)
    assert [book.next() for book in books] == [TROUBLE] * 2
