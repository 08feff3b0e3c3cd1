"""Where photographs come from: a folder (nested or not), a .tar or a .zip.

A listing is sorted by name, so the same source always gives the same images in the same order, and an image's
place in the listing can serve as its key. Classes are the topmost folders below what all images have in
common; a source with loose images beside class folders has no classes.
"""

import hashlib
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from lediflow.errors import UserError

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Entry(NamedTuple):
    """One file of a source."""

    name: str  # path inside the source, with forward slashes
    bytes: int
    offset: int  # first byte inside a tar; 0 elsewhere


class Source(Protocol):
    """Something that lists files and hands out their bytes."""

    def entries(self) -> Iterable[Entry]: ...

    def read(self, entry: Entry) -> bytes: ...


@dataclass
class FolderSource:
    """Files below a folder."""

    path: Path

    def entries(self) -> Iterable[Entry]:
        for folder, _, names in os.walk(self.path):
            for file in (Path(folder, name) for name in names):
                length = file.stat().st_size if file.exists() else 0  # a broken link is reported when read
                yield Entry(file.relative_to(self.path).as_posix(), length, 0)

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


@dataclass
class TarSource:
    """Files of an uncompressed tar, read at their offsets."""

    path: Path

    def entries(self) -> Iterable[Entry]:
        with tarfile.open(self.path, "r:") as archive:
            yield from (Entry(item.name, item.size, item.offset_data) for item in archive if item.isfile())
            self._check_end(archive.offset)

    def _check_end(self, offset: int) -> None:
        # tarfile takes a file cut inside a header for a complete one
        with self.path.open("rb") as stream:
            stream.seek(offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends early")

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            return stream.read(entry.bytes)


@dataclass
class ZipSource:
    """Files of a zip archive."""

    path: Path

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def entries(self) -> Iterable[Entry]:
        yield from (Entry(i.filename, i.file_size, 0) for i in self.archive.infolist() if not i.is_dir())

    def read(self, entry: Entry) -> bytes:
        return self.archive.read(entry.name)


def open_source(path: Path) -> Source:
    """The source at `path`, whichever kind it is."""
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise UserError(f"source={path} does not exist; give a folder of images, a .tar or a .zip")
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    return TarSource(path)


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None

    def fingerprint(self) -> str:
        """Changes when an image is added, removed, renamed or changes its length."""
        lines = "".join(f"{image.name}\0{image.bytes}\n" for image in self.images)
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def list_images(path: Path) -> Listing:
    """Every image of a source with its class."""
    files = _visible_files(path)
    images = sorted(file for file in files if PurePosixPath(file.name).suffix.lower() in IMAGE_EXTENSIONS)
    if not images:
        raise UserError(_nothing_found(path, files))
    folders = _class_folders([image.name for image in images])
    if folders is None:
        return Listing(images, [-1] * len(images), None)
    classes = sorted(set(folders))
    number = {name: label for label, name in enumerate(classes)}
    return Listing(images, [number[folder] for folder in folders], classes)


def _visible_files(path: Path) -> list[Entry]:
    try:
        return [file for file in open_source(path).entries() if not _is_hidden(file.name)]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"source={path} cannot be read as a .zip or an uncompressed .tar ({error}); "
            "unpack it and give the folder"
        ) from error
    except OSError as error:
        raise UserError(f"source={path} cannot be read: {error.strerror}; check its permissions") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _class_folders(names: list[str]) -> list[str] | None:
    folders = [PurePosixPath(name).parent for name in names]
    shared = len(PurePosixPath(os.path.commonpath([folder.as_posix() for folder in folders])).parts)
    if any(len(folder.parts) == shared for folder in folders):
        return None
    return [folder.parts[shared] for folder in folders]


def _nothing_found(path: Path, files: list[Entry]) -> str:
    kinds = Counter(PurePosixPath(file.name).suffix.lower() or "no extension" for file in files)
    found = ", ".join(f"{kind} x {count}" for kind, count in kinds.most_common(5)) or "nothing"
    return (
        f"source={path} holds no images: found {len(files)} files ({found}); "
        f"images end in {', '.join(IMAGE_EXTENSIONS)}"
    )
