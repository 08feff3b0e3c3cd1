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
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lediflow.data.shards.index import ShardFile
from lediflow.data.sources.labels import Label, as_label
from lediflow.data.sources.tar import check_end
from lediflow.errors import UserError

CHUNK_BYTES = 2**20
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp")
PAYLOADS = (*PICTURES, "npy")


class Look(NamedTuple):
    """What a payload holds, as far as its header tells."""

    extension: str
    shape: tuple[int, ...]  # () where it cannot be read
    dtype: str


@dataclass
class Scanned:
    """One tar, read from front to back."""

    file: ShardFile
    names: list[bytes] = field(default_factory=list)  # keys, with their folder
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
    with path.open("rb") as file, reading_explained(path):
        hashed = HashedReader(file)
        with as_stream(hashed) as tar:
            samples = [found for group in samples_of_tar(tar) if (found := _sample(group))]
            check_end(path, tar.offset)
        while hashed.read(CHUNK_BYTES):  # padding behind the last member
            pass
    size, sha256 = path.stat().st_size, hashed.digest.hexdigest()
    scanned = Scanned(ShardFile(name=path.name, samples=len(samples), bytes=size, sha256=sha256))
    for name, place, label, look in samples:
        scanned.names.append(name)
        scanned.places.append(place)
        scanned.labels.append(label)
        scanned.looks[look] += 1
    return scanned


def metadata_by_offset(stream: Any) -> dict[int, dict[str, Any]]:
    """Offset of each payload in a tar -> what the `.json` member of the same sample says."""
    found = {}
    with as_stream(stream) as tar:
        for group in samples_of_tar(tar):
            members = {member.extension: member for member in group}
            if payload := _payload(members):
                about = _json(members)
                about.setdefault("source", payload.key)
                found[payload.offset] = about
    return found


class HashedReader:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.digest.update(content)
        return content


def as_stream(file: Any) -> tarfile.TarFile:
    """A tar that is read from front to back."""
    return tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK_BYTES)


def samples_of_tar(tar: tarfile.TarFile) -> Iterator[list[Member]]:
    """The members of each sample, which stand side by side."""
    return ([*group] for _, group in groupby(_members(tar), key=lambda member: member.key))


def _members(tar: tarfile.TarFile) -> Iterator[Member]:
    for item in tar:
        folder, slash, name = item.name.removeprefix("./").rpartition("/")
        stem, _, extension = name.partition(".")
        if item.isfile() and stem and (content := tar.extractfile(item)):
            yield Member(f"{folder}{slash}{stem}", extension.lower(), item.offset_data, content.read())


@contextmanager
def reading_explained(path: Path) -> Iterator[None]:
    """Say of a tar that cannot be read what it is and what to do."""
    try:
        yield
    except tarfile.TarError as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar ({error}); copy it again, unpack it if it is "
            "compressed, or take it out of the folder"
        ) from error


def _payload(members: dict[str, Member]) -> Member | None:
    return next((members[name] for name in PAYLOADS if name in members), None)


def _sample(group: list[Member]) -> tuple[bytes, tuple[int, int, int], Label, Look] | None:
    members = {member.extension: member for member in group}
    payload = _payload(members)
    if payload is None:
        return None
    look = _look(payload)
    # a length of zero tells readers that there is nothing to be had here
    place = payload.offset, len(payload.content) if look.shape else 0, zlib.crc32(payload.content)
    return payload.key.encode(), place, _label(members), look


def _label(members: dict[str, Member]) -> Label:
    if "cls" in members:
        return as_label(members["cls"].content.decode(errors="replace"))
    about = _json(members)
    return as_label(about.get("label", about.get("cls")))


def _json(members: dict[str, Member]) -> dict[str, Any]:
    """What the sample's .json says; nothing if there is none, or none that is an object."""
    try:
        about = json.loads(members["json"].content) if "json" in members else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _look(payload: Member) -> Look:
    """Shape and type; a payload that cannot be read looks like nothing, and is reported when it is needed."""
    try:
        if payload.extension == "npy":
            array = np.load(BytesIO(payload.content))
            is_plain = array.flags.c_contiguous and array.dtype.isnative
            return Look("npy", array.shape, str(array.dtype) if is_plain else "other order of bytes")
        with Image.open(BytesIO(payload.content)) as image:
            channels = 1 if image.mode in ("1", "L", "I;16") else 3
            return Look(payload.extension, (channels, image.height, image.width), "uint8")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return Look(payload.extension, (), "")
