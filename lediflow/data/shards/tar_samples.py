"""The samples of one tar that another program wrote: which members they are, and what the tar says about them.

Every picture is a sample, unless it is a field in webdataset's sense: `x.seg.png` next to `x.jpg` is a field if every
sample of the tar has a `.seg.png`. In `a.png, a.1.png` the second is a sample of its own, and so is any picture with a
label file of its own name. A tar where this is undecided is refused.
An array (`.npy`) is a sample if no picture shares its name up to the first dot.

`scan_tar` reads a tar once, from front to back: offsets, checksums, labels and the tar's hash come from the same pass.
"""

import hashlib
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lediflow.data.photograph import picture_header
from lediflow.data.shards.index import ShardFile
from lediflow.data.sources.archives import check_end
from lediflow.data.sources.labels import (
    group,
    is_label_name,
    json_object,
    label_in,
    paired_label,
    partners,
    refusals_named,
    refuse_doubles,
)
from lediflow.data.sources.names import (
    PassedOver,
    is_hidden,
    is_picture_name,
    passed_over,
    printable,
    stem,
)
from lediflow.data.sources.protocol import Label, SourceError
from lediflow.errors import UserError

CHUNK_BYTES = 2**20
ARRAY_EXTENSION = ".npy"
A_NUMBER = re.compile(r"[0-9][0-9._-]*")


class PayloadKind(NamedTuple):
    """Kind, shape and dtype of a payload, from its header."""

    extension: str  # in lower case, without the dot
    shape: tuple[int, ...]  # () if it cannot be read
    dtype: str

    @property
    def is_picture(self) -> bool:
        return f".{self.extension}" != ARRAY_EXTENSION


class Payload(NamedTuple):
    """A file that may be a sample."""

    place: tuple[int, int, int]  # offset, length, CRC-32
    kind: PayloadKind


@dataclass
class TarScan:
    """What was found in one tar."""

    file: ShardFile
    passed_over: PassedOver
    files: list[str] = field(default_factory=list)  # the samples' members
    names: list[bytes] = field(default_factory=list)  # keys, including folders
    places: list[tuple[int, int, int]] = field(default_factory=list)  # offset, length, CRC-32
    labels: list[Label] = field(default_factory=list)
    kinds: Counter[PayloadKind] = field(default_factory=Counter)


def scan_tar(path: Path) -> TarScan:
    """Read one tar; UserError if it cannot be read, or if its samples are ambiguous."""
    payloads: list[tuple[str, Payload]] = []
    labels: list[tuple[str, Label]] = []
    others: list[tuple[str, bool]] = []
    with path.open("rb") as file, tar_errors_explained(path):
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
        while hashed.read(CHUNK_BYTES):  # padding after the last member
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
) -> TarScan:
    """The samples in the order of the tar, with their labels."""
    label_files, payload_of, label_of = [name for name, _ in labels], dict(payloads), dict(labels)
    files = chosen_payloads([name for name, _ in payloads], label_files)
    found = partners(files, label_files)
    used = {name for each in found.values() for name in each.files}
    left = {name for name in payload_of if name not in found} | {
        name for name in label_of if name not in used
    }
    scanned = TarScan(
        ShardFile(name=file.name, samples=len(files), bytes=file.bytes, sha256=file.sha256),
        passed_over(files, [*((name, False) for name in left), *others]),
        files,
    )
    for name in files:
        scanned.names.append(stem(name).encode(errors="surrogateescape"))
        scanned.places.append(payload_of[name].place)
        scanned.labels.append(paired_label(name, found[name], label_of.__getitem__))
        scanned.kinds[payload_of[name].kind] += 1
    return scanned


class HashedReader:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.digest.update(content)
        return content


@contextmanager
def tar_errors_explained(path: Path) -> Iterator[None]:
    """Turn a TarError into a UserError that names the file and says what to do."""
    try:
        yield
    except tarfile.TarError as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar ({error}); copy it again, unpack it if it is "
            "compressed, or take it out of the folder"
        ) from error


def _payload(item: tarfile.TarInfo, content: bytes) -> Payload:
    kind = _kind(PurePosixPath(item.name).suffix.lower()[1:], content)
    # a length of zero marks a payload that cannot be read
    return Payload((item.offset_data, len(content) if kind.shape else 0, zlib.crc32(content)), kind)


def _kind(extension: str, content: bytes) -> PayloadKind:
    """Shape and dtype; an unreadable payload gets an empty shape, and is reported when it is read."""
    try:
        if f".{extension}" == ARRAY_EXTENSION:
            array = np.load(BytesIO(content))
            is_plain = array.flags.c_contiguous and array.dtype.isnative
            return PayloadKind(
                extension, array.shape, str(array.dtype) if is_plain else "other order of bytes"
            )
        mode, width, height = picture_header(content)
        return PayloadKind(extension, (1 if mode in ("1", "L", "I;16") else 3, height, width), "uint8")
    except Exception:  # damaged bytes make decoders raise errors of any kind
        return PayloadKind(extension, (), "")


def chosen_payloads(files: Sequence[str], label_files: Sequence[str]) -> list[str]:
    """The files that are samples, among the pictures and arrays of a tar; SourceError if that is ambiguous."""
    refuse_doubles(files)
    with_picture = {group(name) for name in files if is_picture_name(name)}
    payloads = [name for name in files if is_picture_name(name) or group(name) not in with_picture]
    labelled = set(map(stem, label_files))
    plain = {group(name) for name in payloads if stem(name) == group(name)}
    fields = {name: _field(name) for name in payloads if group(name) in plain and stem(name) not in labelled}
    counts = Counter(fields.values())
    for name, part in fields.items():
        if part and counts[part] < len(plain):
            raise SourceError(
                f"{printable(name)} may be a picture of its own or belong to {printable(group(name))}.*: "
                f"{counts[part]} of {len(plain)} samples have such a file; rename it without its first dot, or leave "
                "it out"
            )
    samples = [name for name in payloads if not fields.get(name)]
    _refuse_two_of_a_stem(samples)
    return samples


def _field(name: str) -> str:
    """The part between the first dot and the suffix; empty if it is a number, which only distinguishes pictures."""
    between = stem(name)[len(group(name)) + 1 :]
    return "" if A_NUMBER.fullmatch(between) else between


def _refuse_two_of_a_stem(samples: list[str]) -> None:
    first: dict[str, str] = {}
    for name in samples:
        if (other := first.setdefault(stem(name), name)) != name:
            raise SourceError(
                f"{printable(other)} and {printable(name)} are two pictures under one name, and which of them is the "
                "sample is unclear; leave one kind out, or rename it"
            )


def metadata_by_offset(stream: Any) -> dict[int, dict[str, Any]]:
    """The content of each sample's `.json` member, by the offset of the sample's payload in the tar."""
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


def as_stream(file: Any) -> tarfile.TarFile:
    """Open a tar for reading from front to back."""
    return tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK_BYTES)


def files_of_tar(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every file with its content, and every link with empty content."""
    for item in tar:
        if is_link(item):
            yield item, b""
        elif item.isfile() and (stream := tar.extractfile(item)):
            yield item, stream.read()


def is_link(item: tarfile.TarInfo) -> bool:
    """Whether a member is a hard or symbolic link."""
    return item.islnk() or item.issym()


def is_payload_name(name: str) -> bool:
    """Whether a file may be a sample: a picture or an array."""
    return is_picture_name(name) or (name.lower().endswith(ARRAY_EXTENSION) and not is_hidden(name))
