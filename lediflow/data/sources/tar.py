"""Photographs in an uncompressed tar, read at their offsets.

A tar may be in webdataset's layout: files that share their path up to the first dot of the name are one sample,
whose `.cls` member, or "label" in its `.json` member, is the image's class.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lediflow.data.sources.labels import Label, as_label
from lediflow.data.sources.names import is_picture_name
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_identity,
)

LABEL_EXTENSIONS = (".cls", ".json")
CHUNK_BYTES = 2**20


@dataclass
class TarSource(DirectSource):
    """Files of an uncompressed tar."""

    path: Path
    class_names: list[str] | None = None

    def identity(self) -> Identity:
        return file_identity(self.path)

    def entries(self) -> Iterator[Entry]:
        try:
            with tarfile.open(self.path, "r:") as archive:
                for _, members in groupby(_members(archive), key=lambda member: _sample_key(member.name)):
                    yield from _sample(archive, list(members))
                check_end(self.path, archive.offset)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"source={self.path} cannot be read as an archive or table of images ({error}); "
                "copy it again, or unpack it and give the folder"
            ) from error

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            return stream.read(entry.bytes)


def check_end(path: Path, offset: int) -> None:
    """Refuse a tar that has anything but its end mark where tarfile stopped.

    tarfile takes any block that is no header for the end, and so would lose all files behind a damaged one.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        mark = stream.read(tarfile.BLOCKSIZE)
        rest = iter(lambda: stream.read(CHUNK_BYTES), b"")
        if mark != bytes(tarfile.BLOCKSIZE) or any(any(chunk) for chunk in rest):
            raise tarfile.ReadError(
                f"no end mark behind its last readable file, at byte {offset}: it was cut, or is damaged there"
            )


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every one
        if member.isfile():
            yield member


def _sample_key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _sample(archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Iterator[Entry]:
    label = _label(archive, members) if any(is_picture_name(member.name) for member in members) else None
    for member in members:
        yield Entry(member.name, member.size, member.offset_data, label=label)


def _label(archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Label:
    telling = [member for member in members if member.name.lower().endswith(LABEL_EXTENSIONS)]
    for member in sorted(telling, key=lambda member: not member.name.lower().endswith(".cls")):
        stream = archive.extractfile(member)
        content = stream.read() if stream else b""
        label = _told(content, is_json=member.name.lower().endswith(".json"))
        if label is not None:
            return label
    return None


def _told(content: bytes, *, is_json: bool) -> Label:
    if not is_json:
        return as_label(content.decode(errors="replace"))
    try:
        about = json.loads(content)
    except ValueError:
        return None
    return as_label(about.get("label", about.get("cls"))) if isinstance(about, dict) else None
