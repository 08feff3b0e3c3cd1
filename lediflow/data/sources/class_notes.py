"""What people should know about the classes of a set: how many there are, or why there are none.

There are classes only if every image has a label, so one image without may cost all of them: it is named.
"""

from collections.abc import Sequence

from lediflow.data.sources.labels import Label
from lediflow.data.sources.names import shown

CLASSES_SHOWN = 5
NO_CLASSES = "no classes: no image has a label, and none lies in a folder of its class"
LIKE_NOTHING = ("none", "null", "na", "n/a", "<na>", "-")  # names that programs write for a missing label


def class_notes(
    names: Sequence[str], labels: Sequence[Label], numbers: Sequence[int], classes: list[str] | None
) -> list[str]:
    """Sentences about the classes that these labels became; the first says how many there are, or why none."""
    if classes is not None:
        return [found_classes(numbers, classes), *label_notes(labels)]
    return [missing_label(names, labels)] if any(label is not None for label in labels) else [NO_CLASSES]


def shown_classes(classes: Sequence[str]) -> str:
    """The first few classes."""
    names = ", ".join(map(shown, classes[:CLASSES_SHOWN]))
    return names + (", ..." if len(classes) > CLASSES_SHOWN else "")


def found_classes(numbers: Sequence[int], classes: list[str]) -> str:
    """As `3 classes (ant, bee, cat), of which 2 occur`."""
    occurring = len(set(numbers))
    count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
    rest = f", of which {occurring:,} occur" if occurring < len(classes) else ""
    return f"{count} ({shown_classes(classes)}){rest}"


def label_notes(labels: Sequence[Label]) -> list[str]:
    """What is odd about labels that every image has."""
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
    """Why there are no classes although some images have a label."""
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    have = "has" if len(missing) == 1 else "have"
    return (
        f"no classes: {len(missing):,} of {len(names):,} images {have} no label, the first is {shown(missing[0])} "
        "(nothing, nan, lists and negative numbers are no label); for classes every image needs one"
    )


def outside_folders(names: Sequence[str], outside: Sequence[str], folders: Sequence[str]) -> str:
    """Why folders are no classes although there are some."""
    lie = "lies" if len(outside) == 1 else "lie"
    return (
        f"no classes: {len(outside):,} of {len(names):,} images {lie} beside the folders ({shown_classes(folders)}) "
        f"instead of in one, the first is {shown(outside[0])}; for classes every image needs a folder"
    )
