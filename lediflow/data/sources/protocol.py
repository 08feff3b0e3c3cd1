"""What a source of photographs is: files that can be listed, and read in any order.

Any order, because images are distributed to shards in shuffled order. An archive that can only be read from front to
back is first written out as a plain tar, which is a source (archives.py).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lediflow.data.sources.names import is_picture_name
from lediflow.data.workers import OnProgress
from lediflow.errors import UserError

# read from each end of an archive: enough to distinguish it from another of the same length
SAMPLED_BYTES = 2**20

Label = int | str | None  # class number or class name; None: no label


class SourceError(UserError):
    """The source itself cannot be used; no work was started."""


class Entry(NamedTuple):
    """One file of a source."""

    name: str  # path inside the source, with forward slashes
    bytes: int
    offset: int = 0  # position inside its archive
    archive: int = 0  # index of its archive, in a folder of archives
    label: Label = None  # class, if the source states it by other means than folders
    modified: int = 0  # modification time in nanoseconds, if it is a file on disk
    is_link: bool = False  # a link inside an archive; links are not followed


class Identity(NamedTuple):
    """Facts that change when the images of a source change, found without opening them."""

    record: dict[str, str | int]  # derived from names and lengths: the same wherever the source was copied
    modified: str  # derived from the modification times
    newest: int  # the latest modification time, in nanoseconds


def file_entry(name: str, file: Path, label: Label = None) -> Entry:
    """Entry of a file on disk; a missing file is reported when it is read."""
    if not file.is_file():
        return Entry(name, 0, label=label)
    status = file.stat()
    return Entry(name, status.st_size, label=label, modified=status.st_mtime_ns)


class Source(ABC):
    """Lists files and returns their contents. Instances are pickled to worker processes."""

    class_names: list[str] | None = None  # names of numeric labels, if the source has them

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every file, in any order; SourceError if the source cannot be listed."""

    @abstractmethod
    def read(self, entry: Entry) -> bytes:
        """A file's content; OSError if it cannot be read."""

    def is_image(self, entry: Entry) -> bool:
        """Whether a file is taken as a picture."""
        return is_picture_name(entry.name) and not entry.is_link

    def notes(self) -> list[str]:
        """Sentences about where labels may be that were not found."""
        return []

    def inner_name(self, entry: Entry) -> str:
        """The part of an entry's name whose folders may be classes."""
        return entry.name


class Opened(ABC):
    """What was found at a path: a source, or an archive that must be unpacked to become one."""

    @abstractmethod
    def identity(self) -> Identity:
        """Facts that distinguish it from other sources, and from itself after a change."""

    @abstractmethod
    def ready(self, scratch: Path, progress: OnProgress | None = None) -> Source:
        """The source; what cannot be read in any order is first unpacked into the folder `scratch`."""


class DirectSource(Opened, Source):
    """A source that is read in place."""

    def ready(self, scratch: Path, progress: OnProgress | None = None) -> Source:
        return self


def file_identity(path: Path) -> Identity:
    """Length of an archive, a hash of its two ends (where formats keep their tables), and its modification time."""
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
    """Hashes of the names and lengths of files (and of their labels), and of their modification times."""
    fingerprint, times, count, newest = hashlib.sha256(), hashlib.sha256(), 0, 0
    for image in images:
        label = f"\0{image.label}" if labelled else ""
        fingerprint.update(f"{image.name}\0{image.bytes}{label}\n".encode(errors="surrogateescape"))
        times.update(f"{image.name}\0{image.modified}\n".encode(errors="surrogateescape"))
        count, newest = count + 1, max(newest, image.modified)
    return Identity({"images": count, "fingerprint": fingerprint.hexdigest()}, times.hexdigest(), newest)
