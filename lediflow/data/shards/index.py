"""The index next to the shards: `index.json` for people and programs, `index.offsets.npy` for random reads.

The table has one row of 28 bytes per sample, in the order of the shards: key (its index in the source's listing),
offset and length of its payload inside its tar, label (-1 for none), CRC-32 of the payload. A row's shard follows from
the numbers of samples per shard. index.json is written last: a folder that has one is finished.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, Shaped

from lediflow.data.storage import ReadingConfig, open_storage
from lediflow.data.storage.folders import is_remote
from lediflow.disk import sha256_of, whole_or_absent, write_json
from lediflow.errors import UserError
from lediflow.records import RecordError, as_record, parse_json, read_dataclass, typed

SCHEMA_VERSION = 2
MAKE_THEM = "make them: python -m lediflow.prepare"
INDEX_NAME = "index.json"
TABLE_NAME = "index.offsets.npy"
NAMES_NAME = "index.names.npy"
AGAIN = "copy the folder again, or delete it and make it again"
KINDS, MODES, DTYPES = ("images", "latents"), ("rgb", "grey"), ("uint8", "float16", "float32")
PARTS_NAME = ".parts"  # folder of a set under construction
ROW = np.dtype([("key", "<i8"), ("offset", "<i8"), ("length", "<u4"), ("label", "<i4"), ("crc32", "<u4")])


def key_name(key: int) -> str:
    """A sample's key as it is written in the tar."""
    return f"{key:08d}"


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One tar of a set."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What all samples of a set have in common."""

    kind: str  # "images" or "latents"
    payload: str  # file extension of the member that holds the sample
    shape: list[int]  # channels, height and width of one stored view
    dtype: str  # dtype of the stored array
    image_size: int  # side of the picture in pixels, also for latents
    mode: str  # "rgb" or "grey"
    views: int = 1  # 2: the stored array has a first axis [as it is, mirrored]
    has_names: bool = False  # keys are names, in index.names.npy, and not numbers
    classes: list[str] | None = None
    codec: dict[str, Any] | None = None  # for latents: the codec that made them; see Codec.record
    statistics: dict[str, list[float]] | None = None  # for latents, per channel: see latents.py
    made_from: dict[str, Any] = field(default_factory=dict)  # arguments and fingerprint of the source

    @property
    def has_logvar(self) -> bool:
        """Whether the stored channels are those of a mean, followed by those of a log variance."""
        return bool(self.codec and self.codec["has_logvar"])

    @property
    def signal_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what a model is trained on."""
        channels, height, width = self.shape
        return channels // 2 if self.has_logvar else channels, height, width


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """A finished set of shards."""

    root: Path | str  # the folder, or the address, of the shards
    contents: Contents
    shards: list[ShardFile]
    table: Shaped[np.ndarray, " samples"]  # of dtype ROW
    # keys in the tars as bytes, if they are not numbers
    names: Shaped[np.ndarray, " samples"] | None = None
    # identifies the data exactly: SHA-256 of index.json, which holds the hash of every shard
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def shard_sizes(self) -> Int64[np.ndarray, " shards"]:
        return np.array([shard.samples for shard in self.shards], dtype=np.int64)

    @cached_property
    def shard_ends(self) -> Int64[np.ndarray, " shards"]:
        """Index of the first sample after each shard."""
        return np.cumsum(self.shard_sizes)

    def shard_of(self, samples: Int64[np.ndarray, " chosen"]) -> Int64[np.ndarray, " chosen"]:
        """Index of the shard of each sample."""
        return np.searchsorted(self.shard_ends, samples, side="right")

    @property
    def file_sizes(self) -> dict[str, int]:
        """Size in bytes of every shard, by name."""
        return {shard.name: shard.bytes for shard in self.shards}

    def save(self, folder: Path) -> None:
        """Write table and index into a folder, the index last."""
        with whole_or_absent(folder / TABLE_NAME) as stream:
            np.save(stream, self.table)
        if self.names is not None:
            with whole_or_absent(folder / NAMES_NAME) as stream:
                np.save(stream, self.names)
        contents = asdict(self.contents) | {"has_names": self.names is not None}
        head = {"schema_version": SCHEMA_VERSION, "samples": len(self)}
        shards = [asdict(shard) for shard in self.shards]
        write_json(folder / INDEX_NAME, head | contents | {"shards": shards})

    @classmethod
    def load(cls, where: str | Path, reading: ReadingConfig | None = None) -> "ShardIndex":
        """Read the index of a finished set, in a folder or at an address; UserError if its parts do not match."""
        if not is_remote(str(where)):
            return cls.read_from(Path(where), Path(where))
        files = open_storage(where, reading)
        return cls.parsed(
            where, files.read(INDEX_NAME), lambda name: read_array(io.BytesIO(files.read(name)))
        )

    @classmethod
    def read_from(cls, home: Path, root: Path) -> "ShardIndex":
        """Read the index in folder `home` of the shards in folder `root`; UserError if they do not match."""
        try:
            document = (home / INDEX_NAME).read_bytes()
        except FileNotFoundError:
            raise UserError(_no_index(root)) from None
        except OSError as error:
            raise RecordError(f"{home / INDEX_NAME} cannot be read ({error.strerror}); {AGAIN}") from error
        index = cls.parsed(root, document, lambda name: read_array(home / name, mmap_mode="r"))
        _check_sizes(root, index.shards)
        return index

    @classmethod
    def parsed(cls, root: Path | str, content: bytes, load: Callable[[str], np.ndarray]) -> "ShardIndex":
        """The index from the content of an index.json and from the arrays that `load` returns by name.

        RecordError if one of them is truncated, altered, or from another set.
        """
        contents, shards, samples = _described(root, content)
        table = _loaded(root, TABLE_NAME, load)
        if table.dtype != ROW or table.ndim != 1:
            raise RecordError(f"{root}/{TABLE_NAME} is not a table of samples; {AGAIN}")
        names = _loaded(root, NAMES_NAME, load) if contents.has_names else None
        lengths = {INDEX_NAME: samples, TABLE_NAME: len(table)} | (
            {} if names is None else {NAMES_NAME: len(names)}
        )
        if {*lengths.values()} != {sum(shard.samples for shard in shards)}:
            counts = ", ".join(f"{name} of {count}" for name, count in lengths.items())
            raise RecordError(f"{root}: {counts} samples; they come from different sets: {AGAIN}")
        return cls(
            root=root, contents=contents, shards=shards, table=table, names=names,
            fingerprint=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip


def _described(root: Path | str, content: bytes) -> tuple[Contents, list[ShardFile], int]:
    """Contents, shards and number of samples from the content of an index.json."""
    place = f"{root}/{INDEX_NAME}"
    document = dict(as_record(parse_json(content, place, AGAIN), place, AGAIN))
    _check_version(root, document.pop("schema_version", None))
    try:
        samples = typed(int, document.pop("samples", None), "samples")
        shards = typed(list[ShardFile], document.pop("shards", None), "shards")
        contents = read_dataclass(Contents, document, "contents")
        _check_contents(contents)
    except ValueError as error:
        raise RecordError(f"{place}: {error}; {AGAIN}") from error
    return contents, shards, samples


def _check_contents(contents: Contents) -> None:
    """ValueError for contents that no set of this toolkit has."""
    if len(contents.shape) != 3 or min(contents.shape) < 1:
        raise ValueError(f"contents.shape: found {contents.shape}, not channels, height and width")
    for name, known in (("kind", KINDS), ("dtype", DTYPES), ("mode", MODES), ("views", (1, 2))):
        if (found := getattr(contents, name)) not in known:
            raise ValueError(f"contents.{name}: found {found!r}, not one of {', '.join(map(str, known))}")
    if contents.codec is not None and not contents.codec.keys() >= {"name", "has_logvar"}:
        raise ValueError("contents.codec: it has no name and has_logvar")


def _loaded(root: Path | str, name: str, load: Callable[[str], np.ndarray]) -> np.ndarray:
    try:
        return load(name)
    except FileNotFoundError as error:
        raise RecordError(f"{root}/{name} is missing; {AGAIN}") from error
    except (ValueError, OSError) as error:
        raise RecordError(f"{root}/{name} cannot be read ({error}); {AGAIN}") from error


def read_array(file: Path | io.BytesIO, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """The array of an .npy file; ValueError if the file is empty, truncated, or something else."""
    try:
        found = np.load(file, mmap_mode=mmap_mode)
    except (EOFError, ValueError) as error:  # numpy reports any other file as a pickle
        raise ValueError("it is empty, truncated, or not an array") from error
    if not isinstance(found, np.ndarray):
        raise ValueError("it is not an array")
    return found


def _check_version(root: Path | str, version: Any) -> None:
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{root}/{INDEX_NAME} has schema version {version}, this code reads {SCHEMA_VERSION}; "
            "make the shards again, or use the version of lediflow that made them"
        )


def _no_index(root: Path) -> str:
    if (root / PARTS_NAME).is_dir():
        return f"the shards in {root} are not finished; repeat the command that makes them, it continues"
    if not root.is_dir():
        found = "the folder does not exist"
    else:
        names = sorted(path.name for path in root.iterdir())
        found = f"found {', '.join(names[:4]) or 'an empty folder'}" + (", ..." if names[4:] else "")
        if names:
            return f"no finished shards in {root} ({found}); {MAKE_THEM} source={root} output=..."
    return f"no finished shards in {root} ({found}); {MAKE_THEM} source=... output={root}"


def _check_sizes(root: Path, shards: list[ShardFile]) -> None:
    for shard in shards:
        path = root / shard.name
        found = path.stat().st_size if path.exists() else 0
        if found != shard.bytes:
            raise UserError(
                f"{path} has {found} bytes, the index says {shard.bytes}; "
                "the copy is not complete: copy the folder again or make the set again"
            )


def verified(index: ShardIndex) -> str:
    """A sentence if every shard has the hash in the index; UserError with the names of those that differ."""
    damaged = damaged_shards(index)
    if damaged:
        raise UserError(
            f"{len(damaged)} of the {len(index.shards)} shards of {index.root} differ from what was written: "
            f"{', '.join(damaged)}; copy them again, or delete the folder and make the set again"
        )
    shards = "its shard has" if len(index.shards) == 1 else f"all {len(index.shards)} shards have"
    return f"verified: {shards} the SHA-256 that {INDEX_NAME} gives"


def damaged_shards(index: ShardIndex) -> list[str]:
    """Names of shards whose SHA-256 is not that of the index. Reads every shard of the folder."""
    root = Path(index.root)
    return [shard.name for shard in index.shards if sha256_of(root / shard.name) != shard.sha256]
