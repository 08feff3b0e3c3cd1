"""The photographs of a folder and its subfolders, in the order of their paths, and the masks that belong to them."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lediflow.data.sources.names import is_hidden, is_picture_name, passed_over, stem
from lediflow.editing.anonymisation.keys import same_spelling
from lediflow.errors import UserError

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A photograph: its number in the folder, its path there with slashes, and the file."""

    number: int
    name: str
    path: Path


def photographs_in(folder: str) -> list[Source]:
    """All photographs; UserError if there are none. Other files are counted in the log."""
    names = files_in(folder, "source")
    pictures = [name for name in names if is_picture_name(name)]
    if others := passed_over(pictures, [(name, False) for name in names if not is_picture_name(name)]):
        log.info("source=%s: not read, as their names are not those of pictures: %s", folder, others)
    if not pictures:
        raise UserError(f"source={folder} holds no pictures; give the folder of the photographs")
    return [Source(number, name, Path(folder, name)) for number, name in enumerate(pictures)]


def masks_in(folder: str) -> dict[str, list[Path]]:
    """The files of masks, by path without suffix; UserError if there are none."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in files_in(folder, "masks"):
        if is_picture_name(name):
            found[same_spelling(stem(name))].append(Path(folder, name))
    if not found:
        raise UserError(
            f"masks={folder} holds no pictures; give the folder of the masks, named as the photographs"
        )
    return found


def mask_for(source: Source, masks: dict[str, list[Path]]) -> Path:
    """The one mask of a photograph; UserError if there is none, or several."""
    found = masks.get(same_spelling(stem(source.name)), [])
    if len(found) != 1:
        several = f"{len(found)} masks: {', '.join(path.name for path in found)}" if found else "no mask"
        raise UserError(f"{source.name} has {several}; give one, {stem(source.name)}.png, in masks=")
    return found[0]


def files_in(folder: str, option: str) -> list[str]:
    """Paths of all files below a folder that are not hidden, relative to it, sorted; UserError if it is no folder."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{option}={folder} is not a folder; give the folder of the pictures")

    def refuse(error: OSError) -> None:
        raise UserError(f"{option}={folder}: {error.filename} cannot be read ({error.strerror})") from error

    paths = (Path(place, name) for place, _, names in os.walk(root, onerror=refuse) for name in names)
    names = (path.relative_to(root).as_posix() for path in paths)
    return sorted(name for name in names if not is_hidden(name))


def refuse_overlap(output: str, folders: dict[str, str], files: dict[str, str | None]) -> None:
    """UserError if the output would be read as input, or if secrets (`files`) would lie in it."""
    place = Path(os.path.realpath(output))
    for option, folder in folders.items():
        other = Path(os.path.realpath(folder))
        if place == other or other in place.parents or place in other.parents:
            raise UserError(
                f"output={output} and {option}={folder} lie in each other; results must not be mixed with photographs: "
                "choose another output"
            )
    for option, file in files.items():
        if file is not None and place in Path(os.path.realpath(file)).parents:
            raise UserError(
                f"{option}={file} lies in output={output}, which is to hold nothing that says who is who; move it"
            )
    key, source = files.get("key"), folders.get("source")
    if key and source and Path(os.path.realpath(source)) in Path(os.path.realpath(key)).parents:
        raise UserError(
            f"key={key} lies in source={source}, whose files may be known to others; keep the key elsewhere"
        )
