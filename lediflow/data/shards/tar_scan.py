"""One tar that others wrote, read from front to back: its samples' places, labels, checksums, and what they hold.

Which files are samples says payloads.py; a sample is named after its file without the last suffix. Labels are those
of the files beside it (sources/pairing.py). Every byte is read once: offsets, checksums and the tar's hash come out of
the same pass.
"""

import hashlib
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lediflow.data.photograph import described
from lediflow.data.shards.index import ShardFile
from lediflow.data.shards.payloads import chosen_payloads
from lediflow.data.sources.labels import Label
from lediflow.data.sources.names import PassedOver, is_hidden, is_picture_name, passed_over, stem
from lediflow.data.sources.pairing import (
    is_label_name,
    json_object,
    label_in,
    paired_label,
    partners,
    refusals_named,
)
from lediflow.data.sources.tar import check_end
from lediflow.errors import UserError

CHUNK_BYTES = 2**20
ARRAY_EXTENSION = ".npy"


class Look(NamedTuple):
    """What a payload holds, as far as its header tells."""

    extension: str  # in lower case, without the dot
    shape: tuple[int, ...]  # () where it cannot be read
    dtype: str

    @property
    def is_picture(self) -> bool:
        return f".{self.extension}" != ARRAY_EXTENSION


class Payload(NamedTuple):
    """A file that may be a sample."""

    place: tuple[int, int, int]  # offset, length, CRC-32
    look: Look


@dataclass
class Scanned:
    """One tar, read from front to back."""

    file: ShardFile
    passed_over: PassedOver
    files: list[str] = field(default_factory=list)  # the samples' files
    names: list[bytes] = field(default_factory=list)  # keys, with their folder
    places: list[tuple[int, int, int]] = field(default_factory=list)  # offset, length, CRC-32
    labels: list[Label] = field(default_factory=list)
    looks: Counter[Look] = field(default_factory=Counter)


def scan_tar(path: Path) -> Scanned:
    """Read one tar. UserError where it cannot be read, or where its samples are unclear."""
    payloads: list[tuple[str, Payload]] = []
    labels: list[tuple[str, Label]] = []
    others: list[tuple[str, bool]] = []
    with path.open("rb") as file, reading_explained(path):
        hashed = HashedReader(file)
        with as_stream(hashed) as tar:
            for item, content in files_of_tar(tar):
                if is_payload_name(item.name) and not is_link(item):
                    payloads.append((item.name, _payload(item, content)))
                elif is_label_name(item.name) and not is_link(item):
                    labels.append((item.name, label_in(item.name, content)))
                else:
                    others.append((item.name, is_link(item)))
            check_end(path, tar.offset)
        while hashed.read(CHUNK_BYTES):  # padding behind the last member
            pass
    size, sha256 = path.stat().st_size, hashed.digest.hexdigest()
    with refusals_named(path):
        return _scanned(
            ShardFile(name=path.name, samples=0, bytes=size, sha256=sha256), payloads, labels, others
        )


def _scanned(
    file: ShardFile,
    payloads: list[tuple[str, Payload]],
    labels: list[tuple[str, Label]],
    others: list[tuple[str, bool]],
) -> Scanned:
    """The samples in the order of the tar, with the labels of the files beside them."""
    label_files, payload_of, label_of = [name for name, _ in labels], dict(payloads), dict(labels)
    files = chosen_payloads([name for name, _ in payloads], label_files)
    found = partners(files, label_files)
    used = {name for each in found.values() for name in each.files}
    left = {name for name in payload_of if name not in found} | {
        name for name in label_of if name not in used
    }
    scanned = Scanned(
        ShardFile(name=file.name, samples=len(files), bytes=file.bytes, sha256=file.sha256),
        passed_over(files, [*((name, False) for name in left), *others]),
        files,
    )
    for name in files:
        scanned.names.append(stem(name).encode(errors="surrogateescape"))
        scanned.places.append(payload_of[name].place)
        scanned.labels.append(paired_label(name, found[name], label_of.__getitem__))
        scanned.looks[payload_of[name].look] += 1
    return scanned


def metadata_by_offset(stream: Any) -> dict[int, dict[str, Any]]:
    """Offset of each payload in a tar -> what the `.json` member of the same sample says."""
    offsets: dict[str, int] = {}
    about: dict[str, dict[str, Any]] = {}
    with as_stream(stream) as tar:
        for item, content in files_of_tar(tar):
            if is_payload_name(item.name):
                offsets[item.name] = item.offset_data
            elif item.name.lower().endswith(".json"):
                about[item.name] = json_object(content)
    found = partners(list(offsets), list(about))
    return {
        offset: {"source": stem(name)} | next((about[file] for file in found[name].files), {})
        for name, offset in offsets.items()
    }


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


def files_of_tar(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every file with its content, and every link with none."""
    for item in tar:
        if is_link(item):
            yield item, b""
        elif item.isfile() and (stream := tar.extractfile(item)):
            yield item, stream.read()


def is_link(item: tarfile.TarInfo) -> bool:
    """Whether a member only refers to another file."""
    return item.islnk() or item.issym()


def is_payload_name(name: str) -> bool:
    """Whether a file may be a sample: a picture or an array."""
    return is_picture_name(name) or (name.lower().endswith(ARRAY_EXTENSION) and not is_hidden(name))


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


def _payload(item: tarfile.TarInfo, content: bytes) -> Payload:
    look = _look(PurePosixPath(item.name).suffix.lower()[1:], content)
    # a length of zero tells readers that there is nothing to be had here
    return Payload((item.offset_data, len(content) if look.shape else 0, zlib.crc32(content)), look)


def _look(extension: str, content: bytes) -> Look:
    """Shape and type; a payload that cannot be read looks like nothing, and is reported when it is needed."""
    try:
        if f".{extension}" == ARRAY_EXTENSION:
            array = np.load(BytesIO(content))
            is_plain = array.flags.c_contiguous and array.dtype.isnative
            return Look(extension, array.shape, str(array.dtype) if is_plain else "other order of bytes")
        mode, width, height = described(content)
        return Look(extension, (1 if mode in ("1", "L", "I;16") else 3, height, width), "uint8")
    except Exception:  # whatever broken bytes lead decoders to
        return Look(extension, (), "")
