"""What a source of photographs is: files that can be listed, and read in any order.

Any order, because images are dealt to shards shuffled. An archive that can only be read from front to back is
first written out as a plain tar, which is a source (see unpacking.py).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lediflow.data.sources.names import is_picture_name
from lediflow.errors import UserError

SAMPLED_BYTES = 2**20  # of both ends of an archive: enough to tell it from another of the same length

Label = int | str | None  # class number or class name; None: no label

Progress = Callable[[int, int], None]  # (done, in all)


class SourceError(UserError):
    """The source itself cannot be used, so nothing was begun."""


class Entry(NamedTuple):
    """One file of a source."""

    name: str  # path inside the source, with forward slashes
    bytes: int
    offset: int = 0  # where it begins inside an archive
    archive: int = 0  # number of its archive, in a folder of archives
    label: Label = None  # class, where the source tells it otherwise than by folders
    modified: int = 0  # time of its last change in nanoseconds, where it is a file of its own
    is_link: bool = False  # an archive's reference to another file, which is not followed


class Identity(NamedTuple):
    """What changes when the images of a source change, found without opening them."""

    record: dict[str, str | int]  # of names and lengths: the same wherever the source was copied
    modified: str  # changes with the modification times
    newest: int  # the latest of them, in nanoseconds


def file_entry(name: str, file: Path, label: Label = None) -> Entry:
    """The entry of a file on the disk; a missing one is reported when it is read."""
    if not file.is_file():
        return Entry(name, 0, label=label)
    status = file.stat()
    return Entry(name, status.st_size, label=label, modified=status.st_mtime_ns)


class Source(ABC):
    """Something that lists files and hands out their bytes. It travels to other processes."""

    class_names: list[str] | None = None  # of labels that are numbers, where the source knows

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every file, in any order; SourceError where that cannot be told."""

    @abstractmethod
    def read(self, entry: Entry) -> bytes:
        """A file's content; OSError where it cannot be had."""

    def is_image(self, entry: Entry) -> bool:
        """Whether a file shall become a picture."""
        return is_picture_name(entry.name) and not entry.is_link

    def inner_name(self, entry: Entry) -> str:
        """The path whose folders may be classes."""
        return entry.name


class Opened(ABC):
    """What was found at a path; perhaps it must be unpacked before it is a source."""

    @abstractmethod
    def identity(self) -> Identity:
        """What tells it from another, and from itself after a change."""

    @abstractmethod
    def ready(self, scratch: Path, progress: Progress | None = None) -> Source:
        """The source, after unpacking into the folder `scratch` what cannot be read in any order."""


class DirectSource(Opened, Source):
    """A source as it lies on the disk."""

    def ready(self, scratch: Path, progress: Progress | None = None) -> Source:
        return self


def file_identity(path: Path) -> Identity:
    """Length of an archive, a hash of its two ends, where formats keep their tables, and when it was modified."""
    length = path.stat().st_size
    with path.open("rb") as stream:
        ends = stream.read(SAMPLED_BYTES)
        stream.seek(max(0, length - SAMPLED_BYTES))
        ends += stream.read(SAMPLED_BYTES)
    modified = path.stat().st_mtime_ns
    return Identity(
        {"bytes": length, "fingerprint": hashlib.sha256(ends).hexdigest()}, str(modified), newest=modified
    )


def files_identity(images: Iterable[Entry], *, labelled: bool = False) -> Identity:
    """Names, lengths and labels of files, and when they were modified."""
    fingerprint, times, count, newest = hashlib.sha256(), hashlib.sha256(), 0, 0
    for image in images:
        label = f"\0{image.label}" if labelled else ""
        fingerprint.update(f"{image.name}\0{image.bytes}{label}\n".encode(errors="surrogateescape"))
        times.update(f"{image.name}\0{image.modified}\n".encode(errors="surrogateescape"))
        count, newest = count + 1, max(newest, image.modified)
    return Identity({"images": count, "fingerprint": fingerprint.hexdigest()}, times.hexdigest(), newest)
