"""One rank of a training that records which samples each step used, and may kill itself at a chosen place.

`python -m harness.killed_rank OPTIONS COMMAND...`, options as JSON: `record` is the beginning of the names of the
ranks' files, `ranks` those that die, `deaths` [place, call] pairs: when such a rank comes to one of these places
(PLACES) for the call-th time, it notes where it is and ends by SIGKILL.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow import train
from lediflow.engine.checkpoints import Checkpoint, averages, folder, writing
from lediflow.engine.deepspeed import DeepSpeedEngine
from lediflow.engine.local import LocalEngine
from lediflow.engine.ranks import find_ranks
from lediflow.models import export
from lediflow.tracking.event_log import JsonlTracker
from lediflow.training import exporting, loop, resume
from lediflow.training.pictures import monitor
from lediflow.training.state import Training

ENGINES = (LocalEngine, DeepSpeedEngine)
Call = Callable[..., Any]
Wrap = Callable[[Call, Call], Call]  # (function, counting die) -> its replacement


def before(function: Call, die: Call) -> Call:
    return lambda *arguments, **options: (die(), function(*arguments, **options))[1]


def after(function: Call, die: Call) -> Call:
    return lambda *arguments, **options: (function(*arguments, **options), die())[0]


def half_written(function: Call, die: Call) -> Call:
    """The file is there, half of it."""

    def write(path: Path, *arguments: Any) -> Any:
        result = function(path, *arguments)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        die()
        path.write_bytes(content)
        return result

    return write


def half_copied(function: Call, die: Call) -> Call:
    """The copy is there, half of it."""
    return lambda source, target: half_written(lambda path: function(source, path), die)(Path(target))


def half_appended(function: Call, die: Call) -> Call:
    """Half a line is there."""

    def append(tracker: JsonlTracker, line: bytes) -> None:
        function(tracker, line[: len(line) // 2])
        die()
        function(tracker, line[len(line) // 2 :])

    return append


def half_removed(function: Call, die: Call) -> Call:
    """One file of the folder is gone, the others are there."""

    def remove(path: Path, **options: Any) -> None:
        for file in list(path.iterdir())[:1] if path.is_dir() else []:
            file.unlink()
            die()
        function(path, **options)

    return remove


def where(holds: Callable[[Path], bool], wrap: Wrap) -> Wrap:
    """Only calls whose path is so."""

    def chosen(function: Call, die: Call) -> Call:
        wrapped = wrap(function, die)
        return lambda path, *rest, **options: (wrapped if holds(Path(path)) else function)(
            path, *rest, **options
        )

    return chosen


def named(*endings: str) -> Callable[[Path], bool]:
    return lambda path: path.name.endswith(endings)


@dataclass(frozen=True)
class Place:
    """Functions that are patched, and who comes there how often."""

    patches: tuple[tuple[Any, str, Wrap], ...]
    is_everyones: bool = False  # or the first rank's alone
    often: int = 3  # calls that every attempt of some twenty steps makes


def in_engines(method: str, wrap: Wrap, often: int = 6) -> Place:
    return Place(tuple((engine, method, wrap) for engine in ENGINES), is_everyones=True, often=often)


def of_checkpoints(path: Path) -> bool:
    return path.parent.name == "checkpoints"


PLACES = {
    "while the state is loaded": in_engines("load", after, often=1),
    "between forward and backward": in_engines("backward", before),
    "between backward and step": in_engines("step", before),
    "after a step": in_engines("step", after),
    "inside a line of the event log": Place(((JsonlTracker, "append", half_appended),), often=6),
    "while the state is copied": in_engines("state", after, often=3),
    "inside a slice": Place(((writing, "write_slice", half_written),), is_everyones=True),
    "between a slice and its mark": Place(((writing, "write_slice", after),), is_everyones=True),
    "inside a mark": Place(
        ((writing, "write_flushed", where(named(".mark"), half_written)),), is_everyones=True
    ),
    "inside the averaged weights": Place(((writing, "write_averaged", half_written),)),
    "inside the progress": Place(((writing, "write_flushed", where(named("progress.json"), half_written)),)),
    "inside the manifest": Place(((writing, "write_flushed", where(named("manifest.json"), half_written)),)),
    "before the rename": Place(((Path, "rename", where(named(folder.PARTIAL), before)),)),
    "after the rename": Place(((Path, "rename", where(named(folder.PARTIAL), after)),)),
    "while an old checkpoint is removed": Place(((folder.shutil, "rmtree", where(of_checkpoints, half_removed)),)),
    "inside the stored averages": Place(((averages, "write_tensors", half_written),), often=1),
    "inside a picture": Place(((monitor, "write_picture", half_written),)),
    "before the export": Place(((train, "export", before),), often=1),
    "inside the weights of the export": Place(
        ((export.shutil, "copyfile", half_copied), (exporting, "write_averaged", half_written)), often=1
    ),
    "between the weights of the export and their description": Place(
        ((export, "write_description", before),), often=1
    ),
    "after the export": Place(((train, "export", after),), often=1),
}  # fmt: skip
Note = Callable[..., None]


def arm(place: str, call: int, note: Note) -> None:
    """Put the killer where it waits."""
    seen = 0

    def die() -> None:
        nonlocal seen
        seen += 1
        if seen == call:
            note(killed=place)
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name, wrap in PLACES[place].patches:
        function = getattr(owner, name)
        setattr(owner, name, functools.wraps(function)(wrap(function, die)))


def noted_in(path: Path) -> Note:
    """Writes lines of JSON, each at once."""
    file = path.open("a")

    def note(**values: Any) -> None:
        file.write(json.dumps(values) + "\n")
        file.flush()

    return note


def record_steps(note: Note) -> None:
    """Note where the rank began, then the samples of each step that it has finished."""
    begin, take_step = resume.begin, loop.take_step

    def noted_begin(run: Training, newest: Checkpoint | None) -> None:
        begin(run, newest)
        note(begins=run.clock.images_seen)

    def noted_step(run: Training) -> Any:
        batches = []
        fetch = run.stream.next_batch
        run.stream.next_batch = lambda: batches.append(fetch()) or batches[-1]
        step = take_step(run)
        run.stream.next_batch = fetch
        ids = [number for batch in batches for number in batch.ids.tolist()]
        note(
            images_seen=run.clock.images_seen, ids=ids, keys=[key for batch in batches for key in batch.keys]
        )
        return step

    train.begin, loop.take_step = noted_begin, noted_step


def main(arguments: list[str]) -> None:
    options, own_rank = json.loads(arguments[0]), find_ranks().rank
    note = noted_in(Path(f"{options['record']}-{own_rank}.jsonl"))
    note(pid=os.getpid())
    record_steps(note)
    if own_rank in options["ranks"]:
        for place, call in options["deaths"]:
            arm(place, call, note)
    sys.argv[1:] = arguments[1:]
    train.main()


if __name__ == "__main__":
    main(sys.argv[1:])
