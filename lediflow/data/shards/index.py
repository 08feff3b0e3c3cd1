"""What stands beside the shards: `index.json` for people and programs, `index.offsets.npy` for random reads.

The table has one row of 28 bytes per sample, in the order of the shards: key (its number in the source's
listing), offset and length of its payload inside its tar, label (-1 for none), CRC-32 of the payload. A row's
shard follows from the shards' counts.
index.json is written last: a folder that has one is finished.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from lediflow.data.files import sha256_of, whole_or_absent, write_json
from lediflow.errors import UserError

SCHEMA_VERSION = 2
INDEX_NAME = "index.json"
TABLE_NAME = "index.offsets.npy"
ROW = np.dtype([("key", "<i8"), ("offset", "<i8"), ("length", "<u4"), ("label", "<i4"), ("crc32", "<u4")])


def key_name(key: int) -> str:
    """A sample's key as it is written in the tar."""
    return f"{key:08d}"


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One tar of the set."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What every sample of a set is."""

    kind: str  # "images" or "latents"
    payload: str  # file extension of the member that holds the sample
    shape: list[int]  # of one stored view: channels, height, width
    dtype: str  # of the stored array
    image_size: int  # side of the picture, also for latents
    mode: str  # "rgb" or "grey"
    views: int = 1  # 2: the stored array has a first axis, the image as it is and mirrored
    classes: list[str] | None = None
    codec: dict[str, Any] | None = None  # for latents: who made them; see codecs.CodecRecord
    statistics: dict[str, list[float]] | None = None  # for latents: mean and std per channel
    made_from: dict[str, Any] = field(default_factory=dict)  # arguments and fingerprint of the source

    @property
    def has_logvar(self) -> bool:
        """The stored channels are a mean's, then a log-variance's."""
        return bool(self.codec and self.codec["has_logvar"])

    @property
    def signal_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what a model learns."""
        channels, height, width = self.shape
        return channels // 2 if self.has_logvar else channels, height, width


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """A finished set of shards."""

    root: Path
    contents: Contents
    shards: list[ShardFile]
    table: Shaped[np.ndarray, " samples"]  # of ROW

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def shard_sizes(self) -> Int64[np.ndarray, " shards"]:
        return np.array([shard.samples for shard in self.shards], dtype=np.int64)

    @cached_property
    def shard_of_sample(self) -> Int64[np.ndarray, " samples"]:
        return np.repeat(np.arange(len(self.shards)), self.shard_sizes)

    @cached_property
    def fingerprint(self) -> str:
        """Names this data exactly: index.json holds the hash of every shard."""
        return sha256_of(self.root / INDEX_NAME)

    def save(self) -> None:
        with whole_or_absent(self.root / TABLE_NAME) as stream:
            np.save(stream, self.table)
        head = {"schema_version": SCHEMA_VERSION, "samples": len(self)}
        shards = [asdict(shard) for shard in self.shards]
        write_json(self.root / INDEX_NAME, head | asdict(self.contents) | {"shards": shards})

    @classmethod
    def load(cls, root: str | Path) -> "ShardIndex":
        """Read a finished set, checking that its parts belong together."""
        root = Path(root)
        document = _read_document(root)
        shards = [ShardFile(**shard) for shard in document.pop("shards")]
        samples = document.pop("samples")
        table = np.load(root / TABLE_NAME, mmap_mode="r")
        if not len(table) == samples == sum(shard.samples for shard in shards):
            raise UserError(
                f"{root}: {INDEX_NAME} speaks of {samples} samples, {TABLE_NAME} of {len(table)}; "
                "they come from different sets: copy the folder again or make it anew"
            )
        _check_sizes(root, shards)
        return cls(root=root, contents=Contents(**document), shards=shards, table=table)


def _read_document(root: Path) -> dict[str, Any]:
    try:
        document = json.loads((root / INDEX_NAME).read_text())
    except FileNotFoundError:
        raise UserError(_no_index(root)) from None
    version = document.pop("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{root}/{INDEX_NAME} has schema version {version}, this code reads {SCHEMA_VERSION}; "
            "make the shards again, or use the version of lediflow that made them"
        )
    return document


def _no_index(root: Path) -> str:
    if not root.is_dir():
        found = "the folder does not exist"
    else:
        names = sorted(path.name for path in root.iterdir())
        found = f"found {', '.join(names[:4]) or 'an empty folder'}" + (", ..." if names[4:] else "")
    return (
        f"no finished shards in {root} ({found}); make them: "
        f"python -m lediflow.prepare source=... output={root}"
    )


def _check_sizes(root: Path, shards: list[ShardFile]) -> None:
    for shard in shards:
        path = root / shard.name
        found = path.stat().st_size if path.exists() else 0
        if found != shard.bytes:
            raise UserError(
                f"{path} has {found} bytes, the index says {shard.bytes}; "
                "the copy is not complete: copy the folder again or make it anew"
            )


def damaged_shards(index: ShardIndex) -> list[str]:
    """Names of the shards whose content is not what was written (reads everything)."""
    return [shard.name for shard in index.shards if sha256_of(index.root / shard.name) != shard.sha256]
