"""The images of a source, sorted by name, with their classes, and its other files.

The same source always gives the same images in the same order, so an image's index in the listing can serve as its key.

Classes are the labels that the source itself holds. A source without labels has a class per folder, at the topmost
level below the folder that all images share. There are classes only if every image has one; otherwise a note names the
first image without. labels.py says what a label is.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from lediflow.data.sources.labels import (
    alike_notes,
    class_notes,
    found_classes,
    misnumbered_notes,
    numbered,
    shown_classes,
)
from lediflow.data.sources.names import PICTURE_EXTENSIONS, PassedOver, passed_over, printable
from lediflow.data.sources.protocol import Entry, Source, SourceError


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None
    class_notes: list[str]  # how many classes there are or why there are none, then what is suspicious
    passed_over: PassedOver  # files that are not taken as pictures, without captions of pictures


def list_images(source: Source, known: Collection[str] = ()) -> Listing:
    """Every image of a source with its class; files named in `known` do not count as skipped."""
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
    """Class numbers, class names and notes."""
    labels, names = [image.label for image in images], [image.name for image in images]
    numbers, classes = numbered(labels, source.class_names)
    if any(label is not None for label in labels):
        return numbers, classes, class_notes(names, labels, numbers, classes)
    folders = _class_folders([source.inner_name(image) for image in images])
    outside = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    inside = sorted({folder for folder in folders if folder is not None})
    if inside and not outside:
        numbers, classes = numbered(folders)
        notes = [found_classes(numbers, inside), *alike_notes(inside), *misnumbered_notes(inside)]
        return numbers, classes, [*notes, *source.notes()]
    if inside:
        return numbers, None, [outside_folders(names, outside, inside), *source.notes()]
    return numbers, None, [*class_notes(names, labels, numbers, None), *source.notes()]


def _class_folders(names: list[str]) -> list[str | None]:
    """The folder that would be each image's class; None for images outside such a folder."""
    folders = [PurePosixPath(name).parent for name in names]
    # a list may hold absolute and relative paths, which have nothing in common
    if len({folder.is_absolute() for folder in folders}) > 1:
        return [None] * len(folders)
    shared = len(PurePosixPath(os.path.commonpath([folder.as_posix() for folder in folders])).parts)
    return [folder.parts[shared] if len(folder.parts) > shared else None for folder in folders]


def _nothing_found(left: PassedOver) -> str:
    return (
        f"the source holds no images: found {left or 'nothing'}; images end in "
        f"{', '.join(PICTURE_EXTENSIONS)}"
    )


def outside_folders(names: Sequence[str], outside: Sequence[str], folders: Sequence[str]) -> str:
    """The sentence for a source where some images lie outside the class folders."""
    verb = "is" if len(outside) == 1 else "are"
    return (
        f"no classes: {len(outside):,} of {len(names):,} images {verb} next to the folders ({shown_classes(folders)}) "
        f"instead of in one, the first is {printable(outside[0])}; for classes every image needs a folder"
    )
