"""The report's section on edits: the pictures, numbers and settings of folders that `lediflow.edit` wrote.

Everything comes from edit.json, so commands that this module does not know are shown, too: their strip, the numbers of
the record, lists of them as tables, and the settings. A picture is shown only if it has the hash that the record lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.editing.folder import RECORD
from lediflow.editing.interpolation import WAYS
from lediflow.errors import UserError
from lediflow.records import leaves, read_record
from lediflow.report.pictures import Room, ShownPicture, shown_picture

SECTION_BYTES = 600_000  # of all pictures in the section
SHOWN = ("comparison.png", "strip.png")  # the first one that a folder has
MOST_NUMBERS = 12  # an edit of many photographs may have many more
# command -> title and caption
CAPTIONS = {
    "interpolate": (
        "Between two images",
        "Each row is one way from the left image to the right one: on a straight line in the noise w of the latent "
        "sampler (the paper's), on a straight line between the latents z, and on an arc in w. All frames start the "
        "flow with the same noise, so they differ by z alone.",
    ),
    "vary": ("Variations", "The image on the left, and other versions of it."),
    "attribute": ("An attribute", "The image on the left, and the same with less and more of the attribute."),
    "anonymise": ("Anonymised", "The first photograph."),
    "inpaint": (
        "Inpainting",
        "From left to right: an image, the same with its hidden part in grey, and results.",
    ),
}
# numbers of the record by dotted key, those that are shown first
NAMES = {
    "nfe": "evaluations of the flow for each picture",
    "line_error": "largest distance of a kept pixel from its straight line (values span 2)",
    "mask.repainted": "share of pixels repainted",
    "seam.photograph": "seam in the photograph (differences across the mask's border over those beside it)",
    "seam.results": "seam in each result",
    "direction.test.auc": "AUC on pictures that the direction was not fitted on",
    "direction.test.auc_low": "lower end of its 95 % interval",
    "direction.test.auc_high": "upper end of its 95 % interval",
    "direction.separation": "distance between the sets in units of strength",
}
# lists of the record that are shown as tables
TITLES = {
    "ends": "the images at the ends",
    "pictures": "photographs",
    "strengths": "the photograph",
    "held_out": "mean over held-out pictures",
}
HEADS = ("strength", "number")  # columns that name the row; without one, rows are numbered
MOST_ROWS, MISSING = 20, "\N{EN DASH}"  # of a table; a number that a list does not have
# parts of the record shown otherwise
NOT_NUMBERS = (
    "settings",
    "weights",
    "files",
    "places",
    "ways",
    "warnings",
)
# columns of the table of ways
ENDS, MIDDLE, HIGHEST, NOISE, NORM = (
    "prior NLL at the ends",
    "prior NLL in the middle",
    "highest prior NLL",
    "NLL of w in the middle",
    "norm of w in the middle",
)
TYPES = {
    "command": str,
    "settings": dict[str, Any],
    "files": dict[str, str],
    "warnings": list[str],
    "ways": dict[str, dict[str, list[float]]],
}


class NumberTable(NamedTuple):
    """Texts in rows by name, each with a cell for every column; `head` is what names the rows."""

    title: str
    head: str
    columns: list[str]
    rows: dict[str, list[str]]


@dataclass(kw_only=True)
class ShownEdit:
    """One edit as the page shows it, texts by name."""

    title: str
    picture: ShownPicture
    tables: list[NumberTable] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def edits_of(folders: Sequence[Path]) -> list[ShownEdit]:
    """The edits in these folders. UserError for a folder that holds no finished edit."""
    room = Room(SECTION_BYTES)
    return [shown_edit(folder, room) for folder in folders]


def shown_edit(folder: Path, room: Room) -> ShownEdit:
    """One edit; its picture is halved, or left out, if the section has no room for it."""
    advice = "give the output folder of a `python -m lediflow.edit` that ended"
    if not (folder / RECORD).is_file():
        raise UserError(f"--edits={folder} is not an edit: it has no {RECORD}; {advice}")
    record = read_record(folder / RECORD, advice, {"unfinished": bool})
    if record.get("unfinished"):
        raise UserError(
            f"--edits={folder} is unfinished: the command that wrote it was stopped; run it again"
        )
    record = read_record(folder / RECORD, advice, TYPES)
    command, files = record["command"], record["files"]
    title, caption = CAPTIONS.get(command, (command.capitalize(), ""))
    name = next((name for name in (*SHOWN, *sorted(files)) if name in files), SHOWN[-1])
    about = {"file": name, "sha256": files.get(name), "caption": caption}
    return ShownEdit(
        title=title,
        picture=shown_picture(folder, title, about, room),
        tables=list(tables(record)),
        numbers=numbers(record),
        settings=settings(record),
        warnings=record.get("warnings", []),
    )


def tables(record: Mapping[str, Any]) -> Iterator[NumberTable]:
    """The ways of an interpolation, and every list of the record whose entries have numbers."""
    if ways := record.get("ways"):
        known = [way for way in WAYS if way in ways]  # in the order of comparison.png
        rows = {way: way_cells(ways[way]) for way in (*known, *(ways.keys() - known))}
        yield NumberTable("", "way", [ENDS, MIDDLE, HIGHEST, NOISE, NORM], rows)
    for name, entries in record.items():
        if name not in NOT_NUMBERS and isinstance(entries, list):
            found = [numbers_in(entry) for entry in entries if isinstance(entry, dict)]
            title = TITLES.get(name, name.replace("_", " "))
            if len(found) > MOST_ROWS:
                title = f"{title}, the first {MOST_ROWS} of {len(found):,}"
            if (table := list_table(title, found[:MOST_ROWS])).columns:
                yield table


def list_table(title: str, entries: Sequence[Mapping[str, str]]) -> NumberTable:
    """A row for each entry of a list, under its HEADS or its number."""
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    head = next((key for key in HEADS if key in keys), "")
    columns = [key for key in keys if key != head]
    names = [entry.get(head, str(number)) for number, entry in enumerate(entries, start=1)]
    cells = [[entry.get(key, "") for key in columns] for entry in entries]
    return NumberTable(title, head, list(map(number_name, columns)), dict(zip(names, cells, strict=True)))


def numbers(record: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of the record by what they are, those with NAMES first."""
    found = numbers_in({key: value for key, value in record.items() if key not in NOT_NUMBERS})
    order = [key for key in NAMES if key in found] + [key for key in found if key not in NAMES]
    return {number_name(key): found[key] for key in order[:MOST_NUMBERS]}


def numbers_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Every number, and list of numbers, inside nested mappings, as text by dotted key."""
    shown = {key: number_text(value) for key, value in leaves(values)}
    return {key: text for key, text in shown.items() if text}


def number_text(value: Any) -> str:
    """A number, or the numbers of a list; empty for other values."""
    if isinstance(value, list):
        texts = [number_text(one) or MISSING for one in value]
        is_shown = len(texts) <= MOST_NUMBERS and {*texts} - {MISSING}
        return ", ".join(texts) if is_shown else ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.3g}" if is_number else ""


def number_name(key: str) -> str:
    """What the number under a dotted key is."""
    if key in NAMES:
        return NAMES[key]
    words = key.replace("_", " ").split(".")
    if "round trip" in words:
        place = words.index("round trip")
        return ", ".join(["round-trip error", *words[:place], *words[place + 1 :]])
    return ", ".join(words)


def way_cells(values: Mapping[str, Sequence[float]]) -> list[str]:
    """The cells of one way of interpolation, from numbers of its frames."""
    prior, middle = values["prior_nll"], len(values["prior_nll"]) // 2
    found = (
        (prior[0] + prior[-1]) / 2,
        prior[middle],
        max(prior),
        values["w_nll"][middle],
        values["w_norm"][middle],
    )
    return [f"{value:.3f}" for value in found]


def settings(record: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are not empty, and the names of the photographs."""
    given = {key: record.get("places", {}).get(key) for key in ("image", "images", "mask", "masks")}
    named = {key: file_names(value) for key, value in given.items() if value}
    chosen = {key: str(value) for key, value in record["settings"].items() if value not in (None, "", [])}
    return {**named, **chosen}


def file_names(paths: str | Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in ([paths] if isinstance(paths, str) else paths))
