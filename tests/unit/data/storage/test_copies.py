"""The node-local cache: copies appear whole, stay within the limit, and are shared by processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness.storages import CONTENTS, Watched, part

from lediflow.data.storage.copies import CachedShards, make_room
from lediflow.disk import PARTIAL
from lediflow.errors import UserError

SIZES = {name: len(content) for name, content in CONTENTS.items()}


def cached(folder, tmp_path, limit_bytes=100_000, check=None, **trouble):
    source = Watched(folder, **trouble)
    return CachedShards(source, tmp_path / "cache", SIZES, limit_bytes, check), source


def copies(tmp_path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").glob("*/*/*.tar")}


def test_a_shard_is_copied_once_and_read_from_the_copy(folder, tmp_path):
    storage, source = cached(folder, tmp_path)
    for offset in (0, 100, 2000):
        assert part(storage, "a.tar", offset, 9) == CONTENTS["a.tar"][offset : offset + 9]
    assert source.calls == [("copy", "a.tar")]
    assert copies(tmp_path) == {"a.tar"}


def test_a_second_run_finds_the_copies_of_the_first(folder, tmp_path):
    part(cached(folder, tmp_path)[0], "a.tar", 0, 1)
    storage, source = cached(folder, tmp_path)
    assert part(storage, "a.tar", 0, 2) == b"\x00\x01"
    assert source.calls == []


def test_a_recreated_set_is_not_read_from_old_copies(folder, tmp_path):
    before = CachedShards(Watched(folder), tmp_path / "cache", SIZES, 100_000, identity="first")
    assert part(before, "b.tar", 0, 2) == b"bb"
    (folder / "b.tar").write_bytes(b"B" * SIZES["b.tar"])  # of the same size, as latents of another codec are
    after = CachedShards(Watched(folder), tmp_path / "cache", SIZES, 100_000, identity="second")
    assert part(after, "b.tar", 0, 2) == b"BB"


def test_the_least_recently_used_copy_is_evicted(folder, tmp_path):
    storage, _ = cached(folder, tmp_path, limit_bytes=9_500)
    for name in ("a.tar", "b.tar"):
        part(storage, name, 0, 1)
    storage.expect(["a.tar"])
    storage._pool.shutdown(wait=True)
    part(storage, "c.tar", 0, 1)
    assert copies(tmp_path) == {"a.tar", "c.tar"}
    assert part(storage, "b.tar", 0, 1) == b"b"  # and comes back when it is needed


def test_a_deleted_copy_is_made_again(folder, tmp_path):
    storage, source = cached(folder, tmp_path)
    part(storage, "a.tar", 0, 1)
    for path in (tmp_path / "cache").glob("*/*/*.tar"):
        path.unlink()
    storage.local._open.cache_clear()
    assert part(storage, "a.tar", 5, 1) == b"\x05"
    assert source.calls == [("copy", "a.tar")] * 2


def test_a_failed_copy_leaves_no_files(folder, tmp_path):
    storage, _ = cached(folder, tmp_path, check=lambda name, path: (_ for _ in ()).throw(OSError("bad hash")))
    with pytest.raises(OSError, match="bad hash"):
        part(storage, "a.tar", 0, 1)
    assert not [path for path in (tmp_path / "cache").glob("*/*/*") if path.suffix in (".tar", PARTIAL)]


def test_an_unfinished_copy_of_a_dead_process_is_cleared_and_takes_no_room(folder, tmp_path):
    storage, _ = cached(folder, tmp_path, limit_bytes=5_000)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = storage.copies / f".b.tar.5000.{dead.pid}{PARTIAL}"
    left.touch()
    part(storage, "a.tar", 0, 1)
    assert not left.exists()


def test_nothing_else_in_the_folder_is_touched(folder, tmp_path):
    mine = tmp_path / "cache" / "mine"
    mine.mkdir(parents=True)
    for name in ("precious.tar", ".images-000000.tar.host-123.partial"):
        (mine / name).write_bytes(b"x" * 9_000)
    storage, _ = cached(folder, tmp_path, limit_bytes=5_000)
    for name in CONTENTS:
        part(storage, name, 0, 1)
    assert {path.name for path in mine.iterdir()} == {"precious.tar", ".images-000000.tar.host-123.partial"}


def test_threads_that_want_the_same_shard_copy_it_once(folder, tmp_path):
    storage, source = cached(folder, tmp_path)
    threads = [threading.Thread(target=part, args=(storage, "a.tar", 0, 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.calls == [("copy", "a.tar")]


class FinishedMeanwhile(type(Path())):
    """A folder in which another process finishes its copies after every look."""

    def glob(self, pattern):
        found = list(super().glob(pattern))
        for partial in super().glob(f"*/.*{PARTIAL}"):
            partial.replace(partial.with_name("a.tar"))
        return iter(found)


def test_a_copy_that_is_finished_during_eviction_is_used(tmp_path):
    copy = tmp_path / "set" / f".a.tar.5000.{os.getpid()}{PARTIAL}"
    copy.parent.mkdir()
    copy.write_bytes(bytes(5_000))
    make_room(FinishedMeanwhile(tmp_path), allowed_bytes=4_000)
    assert not list(tmp_path.glob("*/*.tar"))


READER = """
import sys
from pathlib import Path
from lediflow.data.storage.copies import CachedShards
from lediflow.data.storage.folders import LocalFolder
from lediflow.data.storage.folders import Read
folder, cache = map(Path, sys.argv[1:])
sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
storage = CachedShards(LocalFolder(folder), cache, sizes, 9_500)
for number in range(60):
    name = sorted(sizes)[number % 3]
    buffer = bytearray(100)
    storage.read_into([Read(name, 200, memoryview(buffer))])
    assert buffer == (folder / name).read_bytes()[200:300]
    storage.expect([])
"""


@pytest.mark.processes
def test_processes_share_a_cache_that_is_too_small_for_all_and_read_right_bytes(folder, tmp_path):
    command = [sys.executable, "-c", READER, folder, tmp_path / "cache"]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert sum(SIZES[name] for name in copies(tmp_path)) <= 9_500


def test_a_limit_below_the_largest_shard_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"data.reading.cache_gib=.* is less than the largest shard"):
        cached(folder, tmp_path, limit_bytes=4_999)


def test_a_cache_that_cannot_be_made_is_explained(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*cache.*; check|exists where a folder is needed"):
        cached(folder, tmp_path)
