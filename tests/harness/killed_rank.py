"""One rank of a training that records which samples each step used, and may kill itself at a chosen place.

`python -m tests.harness.killed_rank OPTIONS COMMAND...`, options as JSON: `record` is the beginning of the names of the
ranks' files, `kill` null or [rank, place, call]: at the call-th time that this rank comes to the place it ends by
SIGKILL, as a machine that loses power would. Places are the keys of PLACES.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lediflow import train
from lediflow.engine.checkpoints import folder, writing
from lediflow.engine.deepspeed import DeepSpeedEngine
from lediflow.engine.local import LocalEngine
from lediflow.engine.ranks import find_ranks
from lediflow.models import export
from lediflow.training import loop

ENGINES = (LocalEngine, DeepSpeedEngine)
Call = Callable[..., Any]
Wrap = Callable[[Call, Call], Call]  # (function, counting die) -> what stands in its place


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


def half_removed(function: Call, die: Call) -> Call:
    """One file of the checkpoint is gone, the others are there."""

    def remove(path: Path, **options: Any) -> None:
        is_checkpoint = Path(path).parent.name == "checkpoints" and Path(path).is_dir()
        for file in list(Path(path).iterdir())[:1] if is_checkpoint else []:
            file.unlink()
            die()
        function(path, **options)

    return remove


def of_finished(wrap: Wrap) -> Wrap:
    """Only where an unfinished folder gets its final name."""

    def chosen(function: Call, die: Call) -> Call:
        wrapped = wrap(function, die)
        return lambda path, target: (wrapped if path.name.endswith(folder.PARTIAL) else function)(
            path, target
        )

    return chosen


PLACES: dict[str, list[tuple[Any, str, Wrap]]] = {
    "between forward and backward": [(engine, "backward", before) for engine in ENGINES],
    "between backward and step": [(engine, "step", before) for engine in ENGINES],
    "after a step": [(engine, "step", after) for engine in ENGINES],
    "while the state is copied": [(engine, "state", after) for engine in ENGINES],
    "inside a slice": [(writing, "write_slice", half_written)],
    "inside a mark or the manifest": [(writing, "write_flushed", half_written)],
    "before the rename": [(Path, "rename", of_finished(before))],
    "after the rename": [(Path, "rename", of_finished(after))],
    "while an old checkpoint is removed": [(folder.shutil, "rmtree", half_removed)],
    "before the export": [(train, "export", before)],
    "inside the export": [(export, "write_beside_then_rename", before)],
}


def arm(place: str, call: int) -> None:
    """Put the killer where it waits."""
    seen = 0

    def die() -> None:
        nonlocal seen
        seen += 1
        if seen == call:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name, wrap in PLACES[place]:
        function = getattr(owner, name)
        setattr(owner, name, functools.wraps(function)(wrap(function, die)))


def record_steps(path: Path) -> None:
    """Write where the rank began, then the samples of each step that it has finished."""
    file = path.open("a")

    def note(**values: Any) -> None:
        file.write(json.dumps(values) + "\n")
        file.flush()

    resume, take_step = loop.resume, loop.take_step

    def noted_resume(run: loop.Training) -> None:
        resume(run)
        note(begins=run.clock.images_seen)

    def noted_step(run: loop.Training) -> Any:
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

    train.resume, loop.take_step = noted_resume, noted_step


if __name__ == "__main__":
    options, own_rank = json.loads(sys.argv[1]), find_ranks().rank
    record_steps(Path(f"{options['record']}-{own_rank}.jsonl"))
    if options["kill"] and options["kill"][0] == own_rank:
        arm(*options["kill"][1:])
    sys.argv[1:] = sys.argv[2:]
    train.main()
