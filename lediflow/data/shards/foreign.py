"""An index for tars that others wrote: webdataset, img2dataset, litdata, or `tar` itself.

Files that share a name up to its first dot are one sample (webdataset's rule). Its payload is the first member
with a known extension; its label is a `.cls` member, or `label` or `cls` in a `.json` one. Every byte is read
once: offsets, checksums and hashes come out of the same pass. Pictures must be square and of one size.

The index lies beside the tars, or in the user's cache folder where they cannot be written.
"""

import hashlib
import json
import logging
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lediflow.data.shards.index import INDEX_NAME, PARTS_NAME, ROW, Contents, ShardFile, ShardIndex
from lediflow.data.sources.labels import Label, as_label, numbered
from lediflow.data.storage.remote import is_remote
from lediflow.errors import UserError

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
SCANNERS = 4
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp")
PAYLOADS = (*PICTURES, "npy")


class Look(NamedTuple):
    """What a payload holds, as far as its header tells."""

    extension: str
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Scanned:
    """One tar, read from front to back."""

    file: ShardFile
    places: list[tuple[int, int, int]] = field(default_factory=list)  # offset, length, CRC-32
    labels: list[Label] = field(default_factory=list)
    looks: Counter[Look] = field(default_factory=Counter)


class Member(NamedTuple):
    """One file of a tar."""

    key: str
    extension: str
    offset: int
    content: bytes


def load_or_index(where: str | Path) -> ShardIndex:
    """The index of a local set, made first where tars have none."""
    root = Path(where)
    if lacks_index(root):
        return index_tars(root)
    return ShardIndex.read_from(index_home(root), root)


def has_index(where: str | Path) -> bool:
    """Whether a local set can be read as it is."""
    return (index_home(Path(where)) / INDEX_NAME).exists()


def lacks_index(where: str | Path) -> bool:
    """Whether there are tars that must be read once before they can be used."""
    if is_remote(str(where)) or has_index(where) or (Path(where) / PARTS_NAME).is_dir():
        return False
    return any(Path(where).glob("*.tar"))


def index_home(root: Path) -> Path:
    """The folder of a set's index: its own, or one of the user's cache for tars that cannot be written to."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lediflow", "indexes", name)
    if (root / INDEX_NAME).exists() or not root.is_dir():
        return root
    return cached if (cached / INDEX_NAME).exists() or not os.access(root, os.W_OK) else root


def index_tars(root: Path) -> ShardIndex:
    """Index every .tar of a folder."""
    paths = sorted(root.glob("*.tar"))
    log.info("indexing %d tars of %s, which have no %s", len(paths), root, INDEX_NAME)
    with ThreadPoolExecutor(SCANNERS) as pool:  # hashing and reading let other threads run
        found = [scan for scan in pool.map(scan_tar, paths) if scan.places]
    if not found:
        raise UserError(
            f"the {len(paths)} tars of {root} hold no samples: no file ends in {', '.join(PAYLOADS)}"
        )
    labels, classes = numbered([label for scan in found for label in scan.labels])
    table = np.zeros(len(labels), dtype=ROW)
    table["key"], table["label"] = np.arange(len(labels)), labels
    for column, values in zip(("offset", "length", "crc32"), zip(*_places(found), strict=True), strict=True):
        table[column] = values
    contents = described(root, sum((scan.looks for scan in found), Counter()), classes)
    home = index_home(root)
    home.mkdir(parents=True, exist_ok=True)
    ShardIndex(root=root, contents=contents, shards=[scan.file for scan in found], table=table).save(home)
    return ShardIndex.read_from(home, root)


def _places(found: list[Scanned]) -> Iterator[tuple[int, int, int]]:
    return (place for scan in found for place in scan.places)


def scan_tar(path: Path) -> Scanned:
    """Read one tar."""
    with path.open("rb") as file:
        hashed = HashedReader(file)
        samples = []
        for _, members in groupby(_members(path, hashed), key=lambda member: member.key):
            samples.append(_sample([*members]))
        while hashed.read(CHUNK_BYTES):  # padding behind the last member
            pass
    usable = [sample for sample in samples if sample]
    size, sha256 = path.stat().st_size, hashed.digest.hexdigest()
    scanned = Scanned(ShardFile(name=path.name, samples=len(usable), bytes=size, sha256=sha256))
    for place, label, look in usable:
        scanned.places.append(place)
        scanned.labels.append(label)
        scanned.looks[look] += 1
    return scanned


class HashedReader:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.digest.update(content)
        return content


def _members(path: Path, stream: Any) -> Iterator[Member]:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as tar:
            for item in tar:
                folder, _, name = item.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if item.isfile() and stem and (content := tar.extractfile(item)):
                    yield Member(f"{folder}/{stem}", extension.lower(), item.offset_data, content.read())
    except tarfile.TarError as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar ({error}); copy it again, unpack it if it is "
            "compressed, or take it out of the folder"
        ) from error


def _sample(members: list[Member]) -> tuple[tuple[int, int, int], Label, Look] | None:
    by_extension = {member.extension: member for member in members}
    payload = next((by_extension[name] for name in PAYLOADS if name in by_extension), None)
    if payload is None:
        return None
    place = payload.offset, len(payload.content), zlib.crc32(payload.content)
    return place, _label(by_extension), _look(payload)


def _label(members: dict[str, Member]) -> Label:
    if "cls" in members:
        return as_label(members["cls"].content.decode(errors="replace"))
    try:
        about = json.loads(members["json"].content) if "json" in members else {}
    except ValueError:
        return None
    return as_label(about.get("label", about.get("cls"))) if isinstance(about, dict) else None


def _look(payload: Member) -> Look:
    """Shape and type; a payload that cannot be read looks like nothing, and is reported when it is needed."""
    try:
        if payload.extension == "npy":
            array = np.load(BytesIO(payload.content), mmap_mode=None)
            return Look("npy", array.shape, str(array.dtype))
        with Image.open(BytesIO(payload.content)) as image:
            channels = 1 if image.mode in ("1", "L", "I;16") else 3
            return Look(payload.extension, (channels, image.height, image.width), "uint8")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return Look(payload.extension, (), "")


def described(root: Path, looks: Counter[Look], classes: list[str] | None) -> Contents:
    """What every sample of foreign tars is; refused unless they are alike."""
    looks = Counter({look: count for look, count in looks.items() if look.shape})
    shapes = Counter({look.shape[1:] for look in looks})
    if len(shapes) != 1 or len({look.dtype for look in looks}) != 1:
        raise UserError(_unlike(root, looks))
    (look, _), (height, width) = looks.most_common(1)[0], next(iter(shapes))
    channels = max(look.shape[0] for look in looks)
    if height != width:
        raise UserError(_unlike(root, looks))
    is_pictures = look.extension in PICTURES
    is_pixels = look.dtype == "uint8"
    return Contents(
        kind="images" if is_pictures else "latents",
        payload=look.extension,
        shape=[channels, height, width],
        dtype=look.dtype,
        image_size=width,
        mode="grey" if channels == 1 else "rgb",
        classes=classes,
        codec=None if is_pictures else {"name": "pixels" if is_pixels else "unknown", "has_logvar": False},
        made_from={"tars": root.name},
    )


def _unlike(root: Path, looks: Counter[Look]) -> str:
    found = "; ".join(
        f"{'x'.join(map(str, look.shape))} {look.extension} ({count})" for look, count in looks.most_common(4)
    )
    return (
        f"the samples of {root} are not squares of one size (channels x height x width: {found or 'none readable'}); "
        f"make them so: python -m lediflow.prepare source={root} output=... size=..."
    )
