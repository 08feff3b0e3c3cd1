"""Photographs that lie below a folder, nested or not, or linked there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lediflow.data.sources.names import is_hidden, is_picture_name
from lediflow.data.sources.protocol import DirectSource, Entry, Identity, file_entry, files_identity


@dataclass
class FolderSource(DirectSource):
    """Files below a folder; hidden ones are listed, but are no pictures."""

    path: Path

    def identity(self) -> Identity:
        return files_identity(sorted(entry for entry in self.entries() if self.is_image(entry)))

    def entries(self) -> Iterator[Entry]:
        for file in files_below(self.path):
            yield file_entry(file.relative_to(self.path).as_posix(), file)

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, and its hidden folders unopened; linked folders belong to it."""
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        hidden = [name for name in folders if is_hidden(name)]
        folders[:] = [
            name for name in folders if not is_hidden(name) and not _leads_back(folder, Path(place, name))
        ]
        for file in (Path(place, name) for name in [*names, *hidden]):
            if not is_picture_name(file.name) and not is_hidden(file.name):
                file.stat()  # raises for a link to nothing, which may have been a folder of images
            yield file


def _leads_back(root: Path, folder: Path) -> bool:
    """Whether a folder is one of those above it, up to the root, so that following it would never end."""
    above = (parent for parent in folder.parents if parent.is_relative_to(root))
    return any(folder.samefile(parent) for parent in above)


def _refuse(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be listed
