"""The images of a source, sorted by name, with their classes, and what else lies there.

The same source always gives the same images in the same order, so an image's index in the listing can serve as its key.

Classes are the labels that the source itself holds. A source without labels has a class per folder, at the topmost
level below the folder that all images share. There are classes only if every image has one; otherwise a note names the
first image without.

A label is a class number or a class name. Numbers are kept, so that two sets made from one data set agree although a
class is missing in one of them. Whole numbers may be written as 3.0, as pandas does where some rows have no label.
True and False are names.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from lediflow.data.sources.names import PICTURE_EXTENSIONS, PassedOver, passed_over, shown
from lediflow.data.sources.protocol import Entry, Label, Source, SourceError

LABEL_COLUMNS = ("label", "class", "cls", "category")
MOST_NUMBERS = 100_000  # larger numbers are treated as names, such as dates
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(\.0*)?")
CLASSES_SHOWN = 5
NO_CLASSES = "no classes: no image has a label, and none lies in a folder of its class"
LIKE_NOTHING = ("none", "null", "na", "n/a", "<na>", "-")  # what programs may write for a missing label


class Listing(NamedTuple):
    """The images of a source, sorted by name."""

    images: list[Entry]
    labels: list[int]  # -1 where the source has no classes
    classes: list[str] | None
    class_notes: list[str]  # how many classes there are or why there are none, then suspicious labels
    passed_over: PassedOver  # files that are not taken as pictures, without captions of pictures


def list_images(source: Source, known: Collection[str] = ()) -> Listing:
    """Every image of a source with its class; files named in `known` do not count as passed over."""
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
        return numbers, classes, [found_classes(numbers, inside)]
    if inside:
        return numbers, None, [outside_folders(names, outside, inside)]
    return numbers, None, class_notes(names, labels, numbers, None)


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


def as_label(value: Any) -> Label:
    """The label in a table's cell or a file's content; -1, NaN and nothing mean no label."""
    text = "" if value is None else str(value).strip()
    if number := WHOLE_NUMBER.fullmatch(text):
        return int(number[1]) if int(number[1]) >= 0 else None
    return None if text.lower() in ("", "nan") else text


def numbered(
    labels: Sequence[Label], class_names: list[str] | None = None
) -> tuple[list[int], list[str] | None]:
    """Class number of each label, and the classes' names; all -1 and None unless every label is present."""
    known = [label for label in labels if label is not None]
    if not known or len(known) < len(labels):
        return [-1] * len(labels), None
    numbers = [label for label in known if isinstance(label, int) and label < MOST_NUMBERS]
    if len(numbers) == len(known):
        names = class_names or []
        more = range(len(names), max(numbers) + 1)
        return numbers, [*names, *map(str, more)]
    sorted_names = sorted({str(label) for label in known})
    place = {name: number for number, name in enumerate(sorted_names)}
    return [place[str(label)] for label in known], sorted_names


def class_notes(
    names: Sequence[str], labels: Sequence[Label], numbers: Sequence[int], classes: list[str] | None
) -> list[str]:
    """Sentences about the classes made of these labels; the first says how many there are, or why there are none."""
    if classes is not None:
        return [found_classes(numbers, classes), *label_notes(labels)]
    return [
        missing_label(names, labels) if any(label is not None for label in labels) else _no_classes(names)
    ]


def shown_classes(classes: Sequence[str]) -> str:
    """The first few classes, for messages."""
    names = ", ".join(map(shown, classes[:CLASSES_SHOWN]))
    return names + (", ..." if len(classes) > CLASSES_SHOWN else "")


def found_classes(numbers: Sequence[int], classes: list[str]) -> str:
    """Such as `3 classes (ant, bee, cat), of which 2 occur`."""
    occurring = len(set(numbers))
    count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
    rest = f", of which {occurring:,} occur" if occurring < len(classes) else ""
    return f"{count} ({shown_classes(classes)}){rest}"


def _no_classes(names: Sequence[str]) -> str:
    """The sentence for a source without labels and class folders; backslashes may have been meant as folders."""
    backslashed = [name for name in names if "\\" in name]
    if not backslashed:
        return NO_CLASSES
    contain = "contains a backslash" if len(backslashed) == 1 else "contain backslashes"
    return (
        f"{NO_CLASSES} ({len(backslashed):,} of {len(names):,} names {contain}, which do not separate folders here, "
        f"the first is {shown(backslashed[0])}; for classes separate folders by /)"
    )


def label_notes(labels: Sequence[Label]) -> list[str]:
    """Sentences about suspicious labels, for a source where every image has one."""
    notes = []
    numbers = sorted({label for label in labels if isinstance(label, int)})
    names = sorted({label for label in labels if isinstance(label, str)})
    if numbers and names:
        notes.append(
            f"the labels mix numbers and names ({numbers[0]}, {shown(names[0])}): all are taken as names, and are "
            "numbered in their order"
        )
    for name in names:
        if name.lower() in LIKE_NOTHING:
            notes.append(f"one class is called {name}: if that stands for no label, leave the label empty")
    return notes


def missing_label(names: Sequence[str], labels: Sequence[Label]) -> str:
    """The sentence for a source where only some images have a label."""
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    have = "has" if len(missing) == 1 else "have"
    return (
        f"no classes: {len(missing):,} of {len(names):,} images {have} no label, the first is {shown(missing[0])} "
        "(nothing, nan, lists and negative numbers are no label); for classes every image needs one"
    )


def outside_folders(names: Sequence[str], outside: Sequence[str], folders: Sequence[str]) -> str:
    """The sentence for a source where some images lie outside the class folders."""
    lie = "lies" if len(outside) == 1 else "lie"
    return (
        f"no classes: {len(outside):,} of {len(names):,} images {lie} beside the folders ({shown_classes(folders)}) "
        f"instead of in one, the first is {shown(outside[0])}; for classes every image needs a folder"
    )
