"""Which person a face shows, as text that the key turns into noise: equal text, equal surrogate.

files      somebody else on every photograph: its path without the suffix, and the number of the face
folders    the largest face on every photograph of a folder is one person; the second largest another, and so on
a table    CSV with a header and the columns file, face, person; a file's path is relative to the source
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lediflow.data.sources.names import stem
from lediflow.editing.anonymisation.keys import same_spelling
from lediflow.errors import UserError

COLUMNS = ("file", "face", "person")
FILES, FOLDERS = "files", "folders"


@dataclass(frozen=True)
class People:
    """The rule that `persons` names; `table` has (file, face) -> person."""

    rule: str
    table: dict[tuple[str, int], str] = field(default_factory=dict)

    def person(self, name: str, face: int) -> str:
        """Who a face is: its number from left to right, with `folders` by size. UserError if the table lacks it."""
        name = same_spelling(name)
        if self.rule == FILES:
            return f"file {stem(name)} face {face}"
        if self.rule == FOLDERS:
            return f"folder {PurePosixPath(name).parent} face {face}"
        if (name, face) not in self.table:
            raise UserError(
                f"persons={self.rule} has no row for file {name}, face {face}; add it (faces are numbered from 0, from "
                "left to right)"
            )
        return f"person {self.table[name, face]}"

    def persons(self, name: str, pixels: list[int]) -> list[str]:
        """Who the faces of a photograph are, from left to right; `pixels`: their sizes. UserError as in `person`."""
        numbers = range(len(pixels))
        if self.rule == FOLDERS:
            by_size = sorted(numbers, key=lambda number: -pixels[number])
            return [self.person(name, by_size.index(number)) for number in numbers]
        return [self.person(name, number) for number in numbers]

    def known(self, name: str) -> str:
        """All that is known about a photograph, to notice when it changes."""
        name = same_spelling(name)
        rows = [f"{face} {person}" for (file, face), person in sorted(self.table.items()) if file == name]
        return "\n".join([self.person(name, 0)] if self.rule in (FILES, FOLDERS) else rows)


def without_photograph(people: People, names: Iterable[str]) -> list[str]:
    """The files of a table that are none of these photographs, each once."""
    known = {same_spelling(name) for name in names}
    return sorted({file for file, _ in people.table} - known)


def people_of(persons: str) -> People:
    """The rule that the option `persons` names; UserError for a table that cannot be read."""
    if persons in (FILES, FOLDERS):
        return People(persons)
    try:
        with Path(persons).open(newline="", encoding="utf-8-sig") as stream:
            return People(persons, read_table(persons, csv.DictReader(stream)))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"persons={persons} cannot be read ({reason}); use files, folders, or the path of a CSV file in UTF-8"
        ) from error


def read_table(persons: str, rows: csv.DictReader[str]) -> dict[tuple[str, int], str]:
    """(file, face) -> person; UserError for missing columns, values that are empty or contradict each other."""
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise UserError(
            f"persons={persons} has no column {', '.join(missing)}; its first line must be: {','.join(COLUMNS)}"
        )
    table: dict[tuple[str, int], str] = {}
    for row in rows:
        place = f"persons={persons}, line {rows.line_num}"
        file, face, person = ((row[name] or "").strip() for name in COLUMNS)
        if not (file and person and face.isdecimal()):
            raise UserError(
                f"{place}: found {file!r}, {face!r}, {person!r}; give a file, a number and a person"
            )
        entry = (same_spelling(PurePosixPath(file).as_posix()), int(face))
        if table.setdefault(entry, person) != person:
            raise UserError(
                f"{place}: face {face} of {file} is {table[entry]!r} and {person!r}; give one person"
            )
    return table
