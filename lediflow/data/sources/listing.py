"""The images of a source, sorted by name, with their classes, and what else lies there.

The same source always gives the same images in the same order, so an image's place in the listing can serve as
its key. Classes are what the source itself tells; otherwise the topmost folders below what all images have in
common. A source with loose images beside class folders has no classes.
"""

import os
from pathlib import PurePosixPath
from typing import NamedTuple

from lediflow.data.sources.labels import numbered
from lediflow.data.sources.names import PICTURE_EXTENSIONS, PassedOver
from lediflow.data.sources.protocol import Entry, Source, SourceError

CAPTION_EXTENSIONS = (".caption", ".json", ".txt")  # beside a picture of their name they describe it


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None
    passed_over: PassedOver  # files that are not taken as pictures, without the captions of those that are


def list_images(source: Source) -> Listing:
    """Every image of a source with its class."""
    images: list[Entry] = []
    others: list[Entry] = []
    for entry in source.entries():
        (images if source.is_image(entry) else others).append(entry)
    images.sort(key=lambda image: image.name)
    passed_over = _passed_over(images, others)
    if not images:
        raise SourceError(_nothing_found(passed_over))
    labels, classes = numbered([image.label for image in images], source.class_names)
    if classes is None and (folders := _class_folders([source.inner_name(image) for image in images])):
        labels, classes = numbered(folders)
    return Listing(images, labels, classes, passed_over)


def _passed_over(images: list[Entry], others: list[Entry]) -> PassedOver:
    stems = {_stem(image.name) for image in images} if others else set()
    passed_over = PassedOver()
    for name in sorted(other.name for other in others):
        if not (name.lower().endswith(CAPTION_EXTENSIONS) and _stem(name) in stems):
            passed_over.add(name)
    return passed_over


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _class_folders(names: list[str]) -> list[str] | None:
    folders = [PurePosixPath(name).parent for name in names]
    shared = len(PurePosixPath(os.path.commonpath([folder.as_posix() for folder in folders])).parts)
    if any(len(folder.parts) == shared for folder in folders):
        return None
    return [folder.parts[shared] for folder in folders]


def _nothing_found(passed_over: PassedOver) -> str:
    return (
        f"the source holds no images: found {passed_over or 'nothing'}; images end in "
        f"{', '.join(PICTURE_EXTENSIONS)}"
    )
