"""A file is replaced completely or not at all; files of killed writers are distinguished from those of live ones."""

import errno
import os
import socket
import subprocess

import pytest

from lediflow.disk import (
    ABANDONED_SECONDS,
    PARTIAL,
    clear_abandoned,
    hash_key,
    replace_text,
    replacing,
    sha256_of,
    whole_or_absent,
    write_json,
)
from lediflow.errors import UserError, disk_errors_explained


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_file_appears_with_its_folder_when_the_block_has_ended(tmp_path, is_flushed):
    path = tmp_path / "new" / "file"
    with whole_or_absent(path, is_flushed=is_flushed) as stream:
        stream.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_writer_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(error), whole_or_absent(path) as stream:
        stream.write(b"half")
        raise error
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_a_message_for_commands_and_an_oserror_for_callers(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    advice = r"cannot write .*file: No space left on device; free some space"
    with pytest.raises(UserError, match=advice), whole_or_absent(tmp_path / "file"):
        raise full
    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / "file"):
        raise full
    with pytest.raises(UserError, match="check the path and the disk"), disk_errors_explained(tmp_path):
        raise OSError("no number")
    assert names(tmp_path) == []


def test_a_named_temporary_file_is_left_at_most_once_by_killed_writers(tmp_path):
    with replacing(tmp_path / "file", ".mine") as new:
        assert new == tmp_path / ".mine"
        new.touch()
    assert names(tmp_path) == ["file"]
    replace_text(tmp_path / "file", "text", temporary=".mine")
    assert (tmp_path / "file").read_text() == "text"


def test_temporary_names_differ_between_processes_and_files(tmp_path):
    with replacing(tmp_path / "a") as a, replacing(tmp_path / "b") as b:
        a.touch()
        b.touch()
        assert a != b
        assert all(f"-{os.getpid()}{PARTIAL}" in path.name for path in (a, b))


def test_equal_content_gives_equal_json_and_hash(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": [2.5]})
    write_json(tmp_path / "b", {"y": [2.5], "x": 1})
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


def test_the_key_of_a_text_is_the_beginning_of_its_sha256():
    assert hash_key("abc") == "ba7816bf8f01cfea"  # FIPS 180-4, example of one block
    assert hash_key("abc", digits=10) == "ba7816bf8f"
    assert hash_key("caf\udce9")  # a path whose bytes are not UTF-8


def test_unfinished_files_of_dead_writers_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = f".a.{socket.gethostname()}-{os.getpid()}{PARTIAL}"
    gone = f".a.{socket.gethostname()}-{dead.pid}{PARTIAL}"
    fresh, rested = f".a.elsewhere-7{PARTIAL}", f".b.elsewhere-7{PARTIAL}"
    for name in (mine, gone, fresh, rested, "a"):
        (tmp_path / name).touch()
    long_ago = (tmp_path / rested).stat().st_mtime - ABANDONED_SECONDS - 1
    os.utime(tmp_path / rested, (long_ago, long_ago))
    clear_abandoned(tmp_path)
    assert names(tmp_path) == sorted([mine, fresh, "a"])
