"""Which kind of source lies at a path, decided by content rather than by name where possible: the table KINDS.

A folder that holds pictures is a source of its own (FolderSource). A folder without pictures may hold archives:
tars of webdataset or img2dataset, Parquet files of Hugging Face, or a mixture (Archives). Archives are parts of one
set, so their names are not classes; an image's name begins with its archive's.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.data.sources.archives import (
    CompressedTar,
    PackedArchive,
    TarSource,
    ZipSource,
    is_compressed,
    unpacked,
)
from lediflow.data.sources.labels import shown_classes
from lediflow.data.sources.lmdb_images import LmdbSource
from lediflow.data.sources.names import is_hidden, is_picture_name
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    Opened,
    Source,
    SourceError,
    file_entry,
    files_identity,
)
from lediflow.data.sources.tables import LIST_EXTENSIONS, ImageList, ParquetImages, image_columns
from lediflow.data.workers import OnProgress

HEAD_BYTES = 512
LMDB_MAGIC = bytes.fromhex("dec0efbe")  # after the page header of 16 bytes


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A kind of source that is one file, or a folder with a file of a certain name."""

    # for messages, with an article: "a .zip"
    name: str
    # the source in the file or folder
    open: Callable[[Path], Opened]
    # whether a file with this path and these first HEAD_BYTES bytes is of this kind
    recognises: Callable[[Path, bytes], bool]
    # a folder without pictures whose files have these suffixes is a source, too; lower case
    suffixes: tuple[str, ...] = ()
    # a folder with a file of this name is of this kind
    marker: str | None = None


# the first kind that recognises a file counts; a new kind is one entry
KINDS: dict[str, SourceKind] = {
    "tar": SourceKind(
        name="a .tar",
        open=TarSource,
        recognises=lambda path, head: head[257:262] == b"ustar",
        suffixes=(".tar",),
    ),
    "compressed tar": SourceKind(
        name="a .tar.gz",
        open=CompressedTar,
        recognises=lambda path, head: is_compressed(head),
        suffixes=(".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2"),
    ),
    "zip": SourceKind(
        name="a .zip",
        open=ZipSource,
        recognises=lambda path, head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")),
        suffixes=(".zip",),
    ),
    "parquet": SourceKind(
        name="a .parquet",
        open=lambda path: ParquetImages(path) if image_columns(path) else ImageList(path),
        recognises=lambda path, head: head.startswith(b"PAR1"),
        suffixes=(".parquet",),
    ),
    "lmdb": SourceKind(
        name="an LMDB",
        open=LmdbSource,
        recognises=lambda path, head: head[16:20] == LMDB_MAGIC,
        marker="data.mdb",
    ),
    "list": SourceKind(
        name="a list in a .csv",
        open=ImageList,
        recognises=lambda path, head: path.suffix.lower() in LIST_EXTENSIONS,
    ),
}


def open_source(path: Path) -> Opened:
    """The source at `path`, of whichever kind; SourceError if there is none."""
    if not path.exists():
        *names, last = (kind.name for kind in KINDS.values())
        raise SourceError(
            f"source={path} does not exist; give a folder of images or of archives, {', '.join(names)}, or {last}"
        )
    with reading_explained(path):
        return _folder(path) if path.is_dir() else _file(path)


@contextmanager
def reading_explained(path: Path) -> Iterator[None]:
    """Turn an OSError raised while examining a source into a SourceError that says what to do."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise SourceError(
            f"source={path} cannot be read: {place}: {error.strerror or error}; check permissions and the disk"
        ) from error


def _folder(path: Path) -> Opened:
    for kind in KINDS.values():
        if kind.marker and (path / kind.marker).exists():
            return kind.open(path)
    suffixes = tuple(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    archives: dict[str, Path] = {}
    others: list[str] = []
    for file in files_below(path):
        if is_picture_name(file.name):
            return FolderSource(path)
        if file.name.lower().endswith(suffixes) and not is_hidden(file.name):
            archives[file.relative_to(path).as_posix()] = file
        else:
            others.append(file.relative_to(path).as_posix())
    if not archives:
        return FolderSource(path)
    # img2dataset puts a table of addresses and captions next to each tar
    tables = {name for name in archives if name.removesuffix(".parquet") + ".tar" in archives}
    return Archives({name: _file(archives[name]) for name in sorted(archives.keys() - tables)}, others)


def _file(path: Path) -> Opened:
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    for kind in KINDS.values():
        if kind.recognises(path, head):
            return kind.open(path)
    if is_picture_name(path.name):
        raise SourceError(f"source={path} is one photograph; give its folder: source={path.parent}")
    return TarSource(path)


@dataclass
class FolderSource(DirectSource):
    """Files below a folder, nested or linked; hidden ones are listed, but are not pictures."""

    path: Path

    def identity(self) -> Identity:
        return files_identity(sorted(entry for entry in self.entries() if self.is_image(entry)))

    def entries(self) -> Iterator[Entry]:
        for file in files_below(self.path):
            yield file_entry(file.relative_to(self.path).as_posix(), file)

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, following links to folders. Hidden folders are yielded but not entered."""
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        hidden = [name for name in folders if is_hidden(name)]
        folders[:] = [
            name for name in folders if not is_hidden(name) and not _leads_back(folder, Path(place, name))
        ]
        for file in (Path(place, name) for name in [*names, *hidden]):
            if not is_picture_name(file.name) and not is_hidden(file.name):
                file.stat()  # raises for a dangling link, which may have been a folder of images
            yield file


def _leads_back(root: Path, folder: Path) -> bool:
    """Whether a folder is the same as one above it, up to the root: following it would never end."""
    above = (parent for parent in folder.parents if parent.is_relative_to(root))
    return any(folder.samefile(parent) for parent in above)


def _refuse(error: OSError) -> None:
    raise error  # by default os.walk skips a folder that cannot be listed


@dataclass
class Archives(Opened):
    """A folder of archives: the members by their paths below the folder."""

    members: dict[str, Opened]
    others: list[str]  # files that are not archives

    def identity(self) -> Identity:
        identities = {name: member.identity() for name, member in self.members.items()}
        records = {name: identity.record for name, identity in identities.items()}
        times = {name: identity.modified for name, identity in identities.items()}
        return Identity(
            {"archives": len(self.members), "fingerprint": _digest(records)},
            _digest(times),
            newest=max(identity.newest for identity in identities.values()),
        )

    def ready(self, scratch: Path, progress: OnProgress | None = None) -> Source:
        packed = [member for member in self.members.values() if isinstance(member, PackedArchive)]
        tars = iter(unpacked(packed, scratch, progress))
        sources = [
            next(tars) if isinstance(member, PackedArchive) else member.ready(scratch)
            for member in self.members.values()
        ]
        return ArchivesSource(list(self.members), sources, self.others)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class ArchivesSource(Source):
    """The archives of a folder as one source."""

    names: list[str]
    sources: list[Source]
    others: list[str]

    def __post_init__(self) -> None:
        named = {
            name: source.class_names
            for name, source in zip(self.names, self.sources, strict=True)
            if source.class_names
        }
        first = next(iter(named), "")
        for name, class_names in named.items():
            if class_names != named[first]:
                raise SourceError(
                    f"{first} and {name} number different classes ({shown_classes(named[first])}; "
                    f"{shown_classes(class_names)}), so that one label means two things; prepare them one by one"
                )
        self.class_names = named.get(first)

    def entries(self) -> Iterator[Entry]:
        yield from (Entry(name, 0) for name in self.others)
        for number, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            for entry in source.entries():
                yield entry._replace(name=f"{name}/{entry.name}", archive=number)

    def read(self, entry: Entry) -> bytes:
        return self.sources[entry.archive].read(entry._replace(name=self.inner_name(entry)))

    def inner_name(self, entry: Entry) -> str:
        return entry.name.removeprefix(f"{self.names[entry.archive]}/")
