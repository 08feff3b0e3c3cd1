"""Reading of results files; what a table could show wrongly without a word is refused by its place in the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lediflow.errors import UserError
from lediflow.records import RecordError, leaves, read_record

Results = dict[str, Any]
Key = TypeVar("Key")

CAMPAIGN = Path("results/campaign")
ADVICE = "restore the file (git log -- FILE), or measure again"


def bench(name: str) -> Path:
    """Where the results of a benchmark are, from the top."""
    return Path("results") / f"{name}.json"


def document(path: Path) -> Results:
    """A results file, whose objects refuse to give a key that they lack.

    Raises RecordError if the file is missing, is no JSON object, or has a NaN or an infinity in it.
    """
    found = read_record(path, ADVICE)
    for place, value in leaves(found, in_lists=True):
        if isinstance(value, float) and not math.isfinite(value):
            raise RecordError(f"{path}, {place}: found {value}, not a finite number; {ADVICE}")
    return found


def results(path: Path) -> Results:
    """The numbers of a results file, without its certificate."""
    found: Results = document(path)["results"]
    return found


def by_key(rows: Iterable[Results], key: Callable[[Results], Key], number: str) -> dict[Key, float]:
    """A number of each row, by what `key` says the row measures; UserError if a table would hide one of two rows."""
    found: dict[Key, float] = {}
    for row in rows:
        at = key(row)
        if at in found:
            raise UserError(f"{place(row)}: a second row of {at}; remove one of them")
        if not isinstance(row[number], int | float):
            raise UserError(f"{place(row)}: {number!r} is {row[number]}, not a number; {ADVICE}")
        found[at] = row[number]
    return found


def alike(records: Sequence[Results], *keys: str) -> Results:
    """The first of these objects; UserError if another has other values, as a caption says them of all."""
    for record in records:
        for key in keys:
            if record[key] != records[0][key]:
                raise UserError(
                    f"{place(record)}: {key!r} is {record[key]!r}, but {records[0][key]!r} in {place(records[0])}: "
                    "one table says it of both; measure one of them again"
                )
    return records[0]


def place(record: Results) -> str:
    """Where an object is: its file and the keys that lead to it."""
    return getattr(record, "place", "a row")
