"""One tar that others wrote, read from front to back: its samples' places, labels, checksums, and what they hold.

Files that share a name up to its first dot are one sample (webdataset's rule). Its payload is the first member
with a known extension; its label is a `.cls` member, or `label` or `cls` in a `.json` one. Every byte is read
once: offsets, checksums and the tar's hash come out of the same pass.
"""

import hashlib
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lediflow.data.shards.index import ShardFile
from lediflow.data.sources.labels import Label, as_label
from lediflow.errors import UserError

CHUNK_BYTES = 2**20
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
