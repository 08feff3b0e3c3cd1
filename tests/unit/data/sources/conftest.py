"""Fixtures for tests of sources: write files, and list what a source finds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lediflow.data.sources import Listing, list_images, open_source


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write files (name -> content) below a folder of this name."""

    def write(folder: str, files: dict[str, bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / folder

    return write


class Found:
    """The listing of a source, and the contents of its images."""

    def __init__(self, path: Path, scratch: Path):
        self.source = open_source(path).ready(scratch)
        self.listing: Listing = list_images(self.source)

    @property
    def names(self) -> list[str]:
        return [image.name for image in self.listing.images]

    @property
    def contents(self) -> list[bytes]:
        return [self.source.read(image) for image in self.listing.images]

    @property
    def class_of(self) -> dict[str, str | None]:
        classes = self.listing.classes
        labels = zip(self.names, self.listing.labels, strict=True)
        return {name: classes[label] if classes else None for name, label in labels}


@pytest.fixture
def find(tmp_path_factory) -> Callable[[Path], Found]:
    return lambda path: Found(path, tmp_path_factory.mktemp("scratch"))
