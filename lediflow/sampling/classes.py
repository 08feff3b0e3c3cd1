"""Classes that `labels=` asks for, by number or by name, as the numbers that the models were trained with.

A whole number is the number of a class, text is its name. Names come with the models: export/config.json holds those of
the data that they were trained on, in the order of their numbers. A folder may be called 10 and be class 1 (names are
numbered in sorted order), so a number that is also the name of another class is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lediflow.errors import UserError
from lediflow.ranges import OutOfRangeError

SHOWN = 20  # names that a message lists
WITHOUT_CLASSES = (
    "these models were trained without classes; leave labels out, or train them with "
    "model.velocity.num_classes"
)
Label = int | str


class ClassNumber(int):
    """The number of a class that was looked up: settings that hold it are not taken for another class's name again."""


def check_entries(labels: Sequence[Any]) -> None:
    """OutOfRangeError unless each entry is a whole number, 0 or more, or a name."""
    for place, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
            raise OutOfRangeError(f"labels[{place}]={label!r} must be the number or the name of a class")
        if isinstance(label, int) and label < 0:
            raise OutOfRangeError(f"labels[{place}]={label} must be at least 0")


def class_numbers(labels: Sequence[Label], names: Sequence[str], count: int) -> list[ClassNumber]:
    """The class number of each label; UserError for one that is no class, or that may mean two.

    `names` are those of the `count` classes; empty if they are not known.
    """
    if unknown := [label for label in labels if isinstance(label, int) and not 0 <= label < count]:
        raise UserError(
            f"labels={unknown}: the classes are 0 to {count - 1}{shown(names, ': ')}; choose among them"
        )
    numbers = {composed(name): number for number, name in enumerate(names)}
    return [
        ClassNumber(
            named(label, numbers, names) if isinstance(label, str) else numbered(label, numbers, names)
        )
        for label in labels
    ]


def named(label: str, numbers: dict[str, int], names: Sequence[str]) -> int:
    """The number of the class of this name."""
    if (number := numbers.get(composed(label))) is not None:
        return number
    if not names:
        raise UserError(
            f"labels: {label!r} is a name, and the models' exports hold no names of classes; give numbers"
        )
    folded = {name.casefold(): name for name in names}
    near = [f"did you mean {folded[key]}? " for key in get_close_matches(label.casefold(), folded, n=1)]
    raise UserError(f"labels: no class is called {label!r}; {''.join(near)}The classes are {shown(names)}")


def numbered(label: int, numbers: dict[str, int], names: Sequence[str]) -> int:
    """The number itself; UserError if it is the name of another class and was not looked up before."""
    if isinstance(label, ClassNumber):
        return label
    other = numbers.get(str(label), label)
    if other != label:
        quoted = [f"'labels=[\"{names[number]}\"]'" for number in (label, other)]
        raise UserError(
            f"labels=[{label}] may mean class {label}, which is called {names[label]}, or class {other}, which is "
            f"called {names[other]}; give names in quotes: {' or '.join(quoted)}"
        )
    return label


def shown(names: Sequence[str], before: str = "") -> str:
    """The names with their numbers, as `0 cat, 1 dog`; "" without names."""
    if not names:
        return ""
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names[:SHOWN]))
    return before + listed + (f", ... {len(names) - 1} {names[-1]}" if len(names) > SHOWN else "")


def composed(name: str) -> str:
    """The name in Unicode's composed form: file systems spell accents in two ways."""
    return unicodedata.normalize("NFC", name)
