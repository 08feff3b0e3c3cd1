"""The images of a source, sorted by name, with their classes, and what else lies there.

The same source always gives the same images in the same order, so an image's place in the listing can serve as
its key. Classes are the labels that the source itself holds; where it holds none, the topmost folders below what all
images have in common. Where an image has no label, or lies beside the class folders, there are no classes, and the
listing says so.
"""

import os
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import NamedTuple

from lediflow.data.sources.class_notes import class_notes, found_classes, outside_folders
from lediflow.data.sources.labels import numbered
from lediflow.data.sources.names import PICTURE_EXTENSIONS, PassedOver, passed_over
from lediflow.data.sources.protocol import Entry, Source, SourceError


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None
    class_notes: list[str]  # how many classes there are or why there are none, then what is odd about them
    passed_over: PassedOver  # files that are not taken as pictures, without the captions of those that are


def list_images(source: Source, known: Collection[str] = ()) -> Listing:
    """Every image of a source with its class; files named in `known` are not counted among what is passed over."""
    images: list[Entry] = []
    others: list[Entry] = []
    for entry in source.entries():
        (images if source.is_image(entry) else others).append(entry)
    images.sort(key=lambda image: image.name)
    unknown = [(other.name, other.is_link) for other in others if other.name not in known]
    left = passed_over((image.name for image in images), unknown)
    if not images:
        raise SourceError(_nothing_found(left))
    labels, classes, notes = _classes(images, source)
    return Listing(images, labels, classes, notes, left)


def _classes(images: list[Entry], source: Source) -> tuple[list[int], list[str] | None, list[str]]:
    """Numbers, names and notes."""
    labels, names = [image.label for image in images], [image.name for image in images]
    numbers, classes = numbered(labels, source.class_names)
    if any(label is not None for label in labels):
        return numbers, classes, class_notes(names, labels, numbers, classes)
    folders = _class_folders([source.inner_name(image) for image in images])
    outside = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    inside = sorted({folder for folder in folders if folder is not None})
    if inside and not outside:
        numbers, classes = numbered(folders)
        return numbers, classes, [found_classes(numbers, inside)]
    if inside:
        return numbers, None, [outside_folders(names, outside, inside)]
    return numbers, None, class_notes(names, labels, numbers, None)


def _class_folders(names: list[str]) -> list[str | None]:
    """The folder that would be each image's class; None for images that lie beside these folders."""
    folders = [PurePosixPath(name).parent for name in names]
    if (
        len({folder.is_absolute() for folder in folders}) > 1
    ):  # a list may hold both; they have nothing in common
        return [None] * len(folders)
    shared = len(PurePosixPath(os.path.commonpath([folder.as_posix() for folder in folders])).parts)
    return [folder.parts[shared] if len(folder.parts) > shared else None for folder in folders]


def _nothing_found(left: PassedOver) -> str:
    return (
        f"the source holds no images: found {left or 'nothing'}; images end in "
        f"{', '.join(PICTURE_EXTENSIONS)}"
    )
