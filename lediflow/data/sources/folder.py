"""Photographs that lie below a folder, nested or not."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lediflow.data.sources.protocol import DirectSource, Entry, Identity


@dataclass
class FolderSource(DirectSource):
    """Files below a folder; hidden ones are left out."""

    path: Path

    def identity(self) -> Identity:
        images = sorted(entry for entry in self.entries() if self.is_image(entry))
        digest = hashlib.sha256()
        for image in images:
            digest.update(f"{image.name}\0{image.bytes}\n".encode(errors="surrogateescape"))
        return {"images": len(images), "fingerprint": digest.hexdigest()}

    def entries(self) -> Iterator[Entry]:
        for file in files_below(self.path):
            length = file.stat().st_size if file.exists() else 0  # a broken link is reported when read
            yield Entry(file.relative_to(self.path).as_posix(), length)

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden."""
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be listed
