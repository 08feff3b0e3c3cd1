"""The standing events of a log as a table: a row for each event and place, a column for each number.

An event that was logged again at the same place, by a run that had crashed, is one row with the newest values. Rows are
in the order of the image clock, so that an evaluation that came late stands where it belongs.

As CSV the table is rectangular, also where a number is logged for the first time late in a run: such cells are empty.
NaN and infinities are `nan`, `inf` and `-inf`. Texts, which may hold anything, are left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError, disk_errors_explained
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import Event, numbers, standing_events

FIRST_COLUMNS = ("run", "time", "event", "images_seen")
NOT_VALUES = ("time", "event", "images_seen")


class Row(NamedTuple):
    """The numbers of one event, by name."""

    time: str  # ISO 8601, of the newest event of the row
    event: str
    images_seen: int
    numbers: dict[str, float]


def distinct_events(events: Iterable[Event]) -> list[Event]:
    """One event for each name and place, in the order of the image clock; of repeated values the newest counts."""
    found: dict[tuple[str, int], Event] = {}
    for event in events:
        place = event["event"], event["images_seen"]
        found[place] = {**found.get(place, {}), **event}
    return sorted(found.values(), key=lambda event: event["images_seen"])


def values_of(event: Event) -> dict[str, object]:
    """The event's values, without its name, time and place."""
    return {key: value for key, value in event.items() if key not in NOT_VALUES}


def read_rows(path: Path) -> list[Row]:
    """The rows of a run folder's log. UserError if it has no events."""
    events = standing_events(RunFolder(path).events)
    if not events:
        raise UserError(f"{path} has no events; give the run folder of lediflow.train")
    return [
        Row(
            event["time"],
            event["event"],
            event["images_seen"],
            dict(numbers(event["event"], values_of(event))),
        )
        for event in distinct_events(events)
    ]


def write_csv(paths: Iterable[Path], output: Path) -> Path:
    """Write the tables of some runs as one CSV file, of which the first column has the run's name; returns its path.

    UserError if another file would be replaced. A link or device such as /dev/stdout is written through.
    """
    refuse_other_file(output)
    runs = {
        path.resolve().name if count == 1 else str(path): read_rows(path) for path, count in counted(paths)
    }
    if output.is_symlink() or (output.exists() and not output.is_file()):
        with disk_errors_explained(output), output.open("w", newline="") as text:
            write_table(runs, text)
    else:
        with whole_or_absent(output) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            write_table(runs, text)
            text.detach()
    return output


def counted(paths: Iterable[Path]) -> list[tuple[Path, int]]:
    """Each path, and how many of the paths have its name."""
    paths = list(paths)
    names = [path.resolve().name for path in paths]
    return [(path, names.count(name)) for path, name in zip(paths, names, strict=True)]


def refuse_other_file(path: Path) -> None:
    """UserError if a file that is not such a table would be replaced."""
    if path.is_dir():
        raise UserError(f"--output={path} is a folder; give the name of a file in it: {path / 'report.csv'}")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            beginning = ",".join(FIRST_COLUMNS).encode()
            if stream.read(len(beginning)) != beginning:
                raise UserError(
                    f"--output={path} exists and is not a table of this command; choose another name"
                )


def write_table(runs: Mapping[str, list[Row]], stream: TextIO) -> None:
    """Write the header and all rows; columns are in the order in which their numbers first occur."""
    names = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row.numbers))
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*FIRST_COLUMNS, *names])
    for run, rows in runs.items():
        for row in rows:
            cells = (as_cell(row.numbers.get(name)) for name in names)
            writer.writerow([run, row.time, row.event, row.images_seen, *cells])
    stream.flush()


def as_cell(value: float | None) -> str:
    """A number so that reading it gives the same number; empty for none."""
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
