"""Sets at addresses, against a real server: http and s3, ranges, whole shards, a cache, bad days."""

import pytest
import torch
from harness.storages import CONTENTS, part
from harness.web import serving

from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage import Read, ReadingConfig, open_storage
from lediflow.data.storage.folders import RemoteFolder
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream
from lediflow.errors import UserError


@pytest.fixture
def server(folder):
    with serving(folder.parent) as server:
        yield server


def address_of(server, scheme):
    """The folder `set` of the server, as a web address or as a bucket."""
    if scheme == "http":
        return f"{server.url}/set", {}
    return "s3://set", {"anon": True, "client_kwargs": {"endpoint_url": server.url}}


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_an_address_gives_the_bytes_of_its_files(server, scheme, tmp_path):
    address, options = address_of(server, scheme)
    storage = RemoteFolder(address, options)
    assert storage.read("b.tar") == CONTENTS["b.tar"]
    assert part(storage, "a.tar", 300, 50) == CONTENTS["a.tar"][300:350]
    storage.copy_to("c.tar", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENTS["c.tar"]


def test_a_range_fetches_no_more_than_its_bytes(server):
    part(RemoteFolder(f"{server.url}/set"), "a.tar", 300, 50)
    assert server.requests[-1] == ("GET", "/set/a.tar", "bytes=300-349")


def test_requests_to_a_failing_server_are_retried(server):
    storage = open_storage(f"{server.url}/set", ReadingConfig(attempts=2))
    storage.pause_seconds = 0.001
    server.failures = 1
    assert storage.read("a.tar") == CONTENTS["a.tar"]


def test_a_server_that_keeps_failing_ends_in_one_clear_error(server):
    storage = open_storage(f"{server.url}/set", ReadingConfig(attempts=2))
    storage.pause_seconds = 0.001
    server.failures = 99
    with pytest.raises(
        UserError, match=r"cannot read http.*/set/a.tar: .*500.*; 2 attempts of up to 120 s each"
    ):
        storage.read("a.tar")


def test_a_server_without_range_requests_is_detected_by_the_first_of_a_batch(server, monkeypatch):
    monkeypatch.setattr(server, "knows_ranges", False)
    storage = open_storage(f"{server.url}/set", ReadingConfig(method="ranges"))
    reads = [Read("a.tar", 10 * number, memoryview(bytearray(8))) for number in range(64)]
    with pytest.raises(
        UserError, match=r"ignores byte ranges: .*1 byte of a.tar it sent 4096; use data.reading.method=whole"
    ):
        storage.read_into(reads)
    assert len(server.requests) == 1


def test_an_address_without_an_index_is_named(server):
    with pytest.raises(UserError, match=r"cannot read http.*/set/index.json"):
        ShardReader.open(f"{server.url}/set")


@pytest.mark.parametrize("reading", ["ranges", "whole", "cache"])
def test_a_stream_from_an_address_is_the_stream_from_the_folder(shards, reader, tmp_path, reading):
    with serving(shards) as server:
        options = (
            ReadingConfig(cache=str(tmp_path), checksums=True)
            if reading == "cache"
            else ReadingConfig(method=reading)
        )
        remote = ShardReader.open(server.url, options)
        assert remote.index.fingerprint == reader.index.fingerprint
        there, here = (
            SampleStream(source, DataConfig(reading=options), seed=0, micro_batch=7, global_batch=7)
            for source in (remote, reader)
        )
        for _ in range(10):
            left, right = there.next_batch(), here.next_batch()
            assert left.keys == right.keys
            assert torch.equal(left.images, right.images)
        there.close()
        requests = [
            request for request in server.requests if request[1].endswith(".tar") and request[0] == "GET"
        ]
    if reading == "ranges":
        assert all(wanted for _, _, wanted in requests)
    else:
        assert len(requests) == 7  # each shard was fetched once
