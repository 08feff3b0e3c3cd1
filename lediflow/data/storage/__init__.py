"""The files of a set of shards: where they lie, and how their bytes are fetched.

folders  what every storage can do; a folder, and an address (the only module that imports fsspec)
copies   shards of another storage held whole: in memory, or in a node-local folder, up to a size
retry    another storage with repeated attempts, time limits and one clear error at the end

`open_storage` chooses by where a set lies, how large its shards are, and what the user asked for:

| set                 | shards up to `whole_mib`                        | larger shards          |
|---------------------|-------------------------------------------------|------------------------|
| on a file system    | read through ahead, then ranges from page cache | byte ranges            |
| at an address       | fetched whole into memory                       | byte ranges            |
| with a cache folder | copied there whole, whatever their size         |                        |

The boundary comes from measurements: docs/performance_data.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lediflow.data.storage.copies import CachedShards, CopyCheck, WholeShards
from lediflow.data.storage.folders import LocalFolder, Read, RemoteFolder, Storage, is_remote
from lediflow.data.storage.retry import RetryingStorage
from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

__all__ = ["Read", "ReadingConfig", "Storage", "open_storage"]

METHODS = ("auto", "ranges", "whole")


@dataclass(kw_only=True)
class ReadingConfig:
    """How the bytes of shards are fetched."""

    # auto: by the shards' size | ranges: only what a sample needs | whole: shard by shard
    method: str = "auto"
    # largest shard that auto reads whole; larger values need more memory for sets at an address
    whole_mib: float = bounded(128.0, at_least=0)
    # memory per rank for whole shards from an address
    memory_gib: float = bounded(4.0, above=0)
    cache: str | None = None  # folder on a node-local disk that shards are copied to; null: none
    cache_gib: float = bounded(100.0, above=0)  # size above which the least recently used shards are removed
    # attempts at a failing read, with growing pauses, before the run stops
    attempts: int = bounded(5, at_least=1)
    # time limit of one attempt at an address, and of one batch
    timeout_seconds: float = bounded(120.0, above=0)
    remote_options: dict[str, Any] = field(default_factory=dict)  # passed to fsspec: keys, endpoints, ...
    checksums: bool = False  # compare every sample with its CRC-32: finds silent damage, costs some speed


def open_storage(
    where: str | Path,
    config: ReadingConfig | None = None,
    sizes: Mapping[str, int] | None = None,
    check: CopyCheck | None = None,
    identity: str = "",
) -> Storage:
    """The storage of a set. `sizes` are the bytes of its shards by name; they are unknown before the index is read.

    `identity` distinguishes the set from an earlier one at the same place. `check(name, path)` is called for each copy
    that enters a cache folder, and raises OSError to have it fetched again.
    """
    config = config or ReadingConfig()
    sizes = dict(sizes or {})
    _check(config)
    whole = reads_whole(config, sizes)
    if not is_remote(str(where)):
        local = LocalFolder(Path(where), whole_bytes=max(sizes.values(), default=0) if whole else 0)
        patient: Storage = RetryingStorage(local, config.attempts)
    else:
        remote = RemoteFolder(str(where), config.remote_options)
        patient = RetryingStorage(remote, config.attempts, config.timeout_seconds)
        if whole and not config.cache:
            return WholeShards(patient, sizes, int(config.memory_gib * 2**30))
    if config.cache and sizes:
        copies = CachedShards(
            patient, Path(config.cache).expanduser(), sizes, config.cache_gib * 2**30, check, identity
        )
        return RetryingStorage(copies, config.attempts)
    return patient


def reads_whole(config: ReadingConfig, sizes: Mapping[str, int]) -> bool:
    """Whether shards of these sizes are fetched whole."""
    if config.method == "auto":
        return 0 < max(sizes.values(), default=0) <= config.whole_mib * 2**20
    return config.method == "whole"


def _check(config: ReadingConfig) -> None:
    if config.method not in METHODS:
        raise UserError(
            f"data.reading.method={config.method} is not known; choose one of {', '.join(METHODS)}"
        )
    check_ranges(config, "data.reading.")
