"""Classes as sources tell them: numbers or names beside the images -> class numbers and names.

Numbers stay what they are, so that two sets of one data set agree although a class is missing in one of them.
Whole numbers may be written as 3.0, as pandas does where some rows have no label. True and False are names.
"""

import re
from collections.abc import Sequence
from typing import Any

Label = int | str | None

LABEL_COLUMNS = ("label", "class", "cls", "category")
MOST_NUMBERS = 100_000  # numbers above are names that happen to consist of digits, such as dates
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(\.0*)?")


def as_label(value: Any) -> Label:
    """A label as it stands in a table or a file; data sets write -1, NaN or nothing where there is none."""
    text = "" if value is None else str(value).strip()
    if number := WHOLE_NUMBER.fullmatch(text):
        return int(number[1]) if int(number[1]) >= 0 else None
    return None if text.lower() in ("", "nan") else text


def numbered(
    labels: Sequence[Label], class_names: list[str] | None = None
) -> tuple[list[int], list[str] | None]:
    """Class numbers and names; -1 and no names unless every image has a label."""
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
