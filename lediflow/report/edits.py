"""The report's section on edits: the pictures, numbers and settings of folders that `lediflow.edit` wrote.

Everything comes from edit.json, so commands that this module does not know are shown, too: their strip, every number
of the record, and the settings. A picture is shown only if it has the hash that the record lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    "inpaint": (
        "Inpainting",
        "From left to right: the image, the same with its hidden part in grey, and results. Pixels that the mask does "
        "not touch keep the bytes of the file.",
    ),
}
NAMES = {
    "nfe": "evaluations of the flow for each picture",
    "line_error": "largest distance of a kept pixel from its straight line (values span 2)",
    "mask.repainted": "share of pixels repainted",
}
NOT_NUMBERS = (
    "settings",
    "weights",
    "files",
    "places",
    "ways",
    "warnings",
)  # parts of the record shown otherwise
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


@dataclass(kw_only=True)
class ShownEdit:
    """One edit as the page shows it: texts by name, and `ways` as rows of a table by column."""

    title: str
    picture: ShownPicture
    numbers: dict[str, str] = field(default_factory=dict)
    ways: dict[str, dict[str, str]] = field(default_factory=dict)
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
    ways = record.get("ways", {})
    name = next((name for name in SHOWN if name in files), "strip.png")
    about = {"file": name, "sha256": files.get(name), "caption": caption}
    return ShownEdit(
        title=title,
        picture=shown_picture(folder, title, about, room),
        numbers=dict(list(numbers(record))[:MOST_NUMBERS]),
        ways={way: way_columns(values) for way, values in sorted(ways.items(), key=as_in_picture)},
        settings=settings(record),
        warnings=record.get("warnings", []),
    )


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every number of the record outside of its settings, with what it is."""
    results = {key: value for key, value in record.items() if key not in NOT_NUMBERS}
    for key, value in leaves(results, in_lists=True):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield number_name(key), f"{value:.3g}"


def number_name(key: str) -> str:
    """What the number under a dotted key is: `ends.1.round_trip.dopri5` is an error of the second image."""
    if key in NAMES:
        return NAMES[key]
    parts = [str(int(part) + 1) if part.isdigit() else part.replace("_", " ") for part in key.split(".")]
    if "round trip" in parts:
        place = parts.index("round trip")
        whose = " ".join(parts[:place]).replace("ends", "image")
        return f"round-trip error of {whose}, {' '.join(parts[place + 1 :])}"
    return ", ".join(parts)


def as_in_picture(way: tuple[str, Any]) -> int:
    """The row of a way in comparison.png."""
    return WAYS.index(way[0]) if way[0] in WAYS else len(WAYS)


def way_columns(values: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The cells of one way of interpolation, from numbers of its frames."""
    prior, middle = values["prior_nll"], len(values["prior_nll"]) // 2
    cells = {
        ENDS: (prior[0] + prior[-1]) / 2,
        MIDDLE: prior[middle],
        HIGHEST: max(prior),
        NOISE: values["w_nll"][middle],
        NORM: values["w_norm"][middle],
    }
    return {name: f"{value:.3f}" for name, value in cells.items()}


def settings(record: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are not empty, and the names of the photographs."""
    given = {key: record.get("places", {}).get(key) for key in ("image", "images", "mask", "masks")}
    named = {key: file_names(value) for key, value in given.items() if value}
    chosen = {key: str(value) for key, value in record["settings"].items() if value not in (None, "", [])}
    return {**named, **chosen}


def file_names(paths: str | Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in ([paths] if isinstance(paths, str) else paths))
