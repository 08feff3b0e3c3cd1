"""The images of a source, sorted by name, with their classes.

The same source always gives the same images in the same order, so an image's place in the listing can serve as
its key. Classes are what the source itself tells; otherwise the topmost folders below what all images have in
common. A source with loose images beside class folders has no classes.
"""

import os
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

from lediflow.data.sources.labels import numbered
from lediflow.data.sources.protocol import IMAGE_EXTENSIONS, Entry, Source, SourceError


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None


def list_images(source: Source) -> Listing:
    """Every image of a source with its class."""
    images, others = [], Counter[str]()
    for entry in source.entries():
        if source.is_image(entry):
            images.append(entry)
        else:
            others[PurePosixPath(entry.name).suffix.lower() or "no extension"] += 1
    if not images:
        raise SourceError(_nothing_found(others))
    images.sort(key=lambda image: image.name)
    labels, classes = numbered([image.label for image in images], source.class_names)
    if classes is None and (folders := _class_folders([source.inner_name(image) for image in images])):
        labels, classes = numbered(folders)
    return Listing(images, labels, classes)


def _class_folders(names: list[str]) -> list[str] | None:
    folders = [PurePosixPath(name).parent for name in names]
    shared = len(PurePosixPath(os.path.commonpath([folder.as_posix() for folder in folders])).parts)
    if any(len(folder.parts) == shared for folder in folders):
        return None
    return [folder.parts[shared] for folder in folders]


def _nothing_found(others: Counter[str]) -> str:
    found = ", ".join(f"{kind} x {count}" for kind, count in others.most_common(5)) or "nothing"
    return (
        f"the source holds no images: found {others.total()} files ({found}); "
        f"images end in {', '.join(IMAGE_EXTENSIONS)}"
    )
