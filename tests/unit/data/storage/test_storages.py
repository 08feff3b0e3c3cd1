"""Every storage gives the bytes of the files, whole and in ranges."""

import pytest
from harness.storages import CONTENTS, Watched, part

from lediflow.data.storage import ReadingConfig, open_storage
from lediflow.data.storage.copies import WholeShards
from lediflow.data.storage.folders import LocalFolder, ShortReadError
from lediflow.errors import UserError

SIZES = {name: len(content) for name, content in CONTENTS.items()}


@pytest.fixture(params=["local", "read through", "memory", "cache"])
def storage(request, folder, tmp_path):
    cache = {"cache": str(tmp_path / "cache")} if request.param == "cache" else {}
    if request.param == "memory":
        return WholeShards(LocalFolder(folder), SIZES, limit_bytes=10_000)
    method = "ranges" if request.param == "local" else "whole"
    return open_storage(folder, ReadingConfig(method=method, **cache), SIZES)


def test_ranges_and_whole_files_are_those_of_the_folder(storage):
    storage.expect(["a.tar", "b.tar"])
    for name, content in CONTENTS.items():
        assert storage.read(name) == content
        assert part(storage, name, 0, len(content)) == content
        assert part(storage, name, 1234, 777) == content[1234 : 1234 + 777]


def test_a_copy_is_the_file(storage, tmp_path):
    storage.copy_to("a.tar", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENTS["a.tar"]


def test_reading_beyond_the_end_is_an_error_with_the_number_of_bytes(folder):
    for storage in (LocalFolder(folder), WholeShards(LocalFolder(folder), SIZES, 10_000)):
        with pytest.raises(ShortReadError, match=r"b.tar ends early: 1000 of 1500 bytes at offset 4000"):
            part(storage, "b.tar", 4000, 1500)


def test_memory_storage_reads_a_file_once_and_expected_ones_in_advance(folder):
    source = Watched(folder)
    storage = WholeShards(source, SIZES, limit_bytes=100_000)
    storage.expect(["a.tar", "b.tar"])
    for _ in range(3):
        part(storage, "a.tar", 7, 9)
        part(storage, "b.tar", 7, 9)
    assert sorted(source.calls) == [("read", "a.tar"), ("read", "b.tar")]


def test_memory_storage_stays_within_its_limit_and_evicts_the_least_recently_used(folder):
    source = Watched(folder)
    storage = WholeShards(source, SIZES, limit_bytes=9_500)
    for name in ("a.tar", "b.tar", "a.tar", "c.tar"):  # 4,096 + 5,000, then 3,000 more
        part(storage, name, 0, 1)
        assert storage.held_bytes <= 9_500
    part(storage, "a.tar", 0, 1)
    assert [name for _, name in source.calls] == ["a.tar", "b.tar", "c.tar"]  # a.tar was still there
    part(storage, "b.tar", 0, 1)
    assert [name for _, name in source.calls] == ["a.tar", "b.tar", "c.tar", "b.tar"]


def test_memory_storage_prefetches_what_fits_and_reads_the_rest_by_ranges(folder):
    source = Watched(folder)
    storage = WholeShards(source, SIZES, limit_bytes=9_500)
    storage.expect(["a.tar", "b.tar", "c.tar"])
    assert storage.held_bytes == SIZES["a.tar"] + SIZES["b.tar"]
    for _ in range(2):
        for name, content in CONTENTS.items():
            assert part(storage, name, 10, 20) == content[10:30]
    assert sorted(source.calls) == [("range", "c.tar")] * 2 + [("read", "a.tar"), ("read", "b.tar")]
    storage.expect(["c.tar"])  # the next window: what is expected no more makes room
    assert storage.held_bytes <= 9_500
    part(storage, "c.tar", 0, 1)
    assert source.calls[-1] == ("read", "c.tar")


def test_memory_forgets_a_failed_fetch(folder):
    storage = WholeShards(Watched(folder, failures=[OSError("gone")]), SIZES, limit_bytes=10_000)
    with pytest.raises(OSError, match="gone"):
        part(storage, "a.tar", 0, 4)
    assert part(storage, "a.tar", 0, 4) == CONTENTS["a.tar"][:4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "mmap"}, "data.reading.method=mmap is not known; choose one of auto, ranges, whole"),
        ({"attempts": 0}, "data.reading.attempts=0 must be at least 1"),
    ],
)
def test_a_wrong_option_is_named(folder, changes, said):
    with pytest.raises(UserError, match=said):
        open_storage(folder, ReadingConfig(**changes))


def test_an_unknown_address_scheme_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"gopher://host/x has a scheme .*; use one of .*https.*s3"):
        open_storage("gopher://host/x")
