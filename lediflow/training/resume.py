"""Where a run begins or continues: at image 0, or at its newest whole checkpoint.

A run is continued only with the identity that it began with: the options that determine its result (stage, model, seed,
global batch, parent). Two identities are compared value by value, and the message names those that differ.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.checkpoints.averages import HISTORY
from lediflow.engine.ema import refuse_new_widths
from lediflow.errors import UserError
from lediflow.flow.widening import SCALE, WIDTH
from lediflow.records import leaves
from lediflow.stages.protocol import AUTO
from lediflow.tracking.session import session_facts
from lediflow.training.state import Training

log = logging.getLogger(__name__)


def differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Each differing value as a phrase: `stage.cap: 10.0, now 5.0`. Empty: the same run."""
    then, now = (dict(leaves(options, in_lists=True)) for options in (found, asked))
    names = sorted(then.keys() | now.keys())
    return [
        f"{name}: {then.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def with_recorded_width(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The options `asked` of a run, without the prior's width where its record `found` does not name one.

    Such a run began with 0, when 0 was the default and was not recorded. Asked for 0, or for today's default, it
    continues with 0 and an unscaled prior. `prior_scale=auto` agrees with the scale that a run began with.
    """
    then, now = found.get("stage"), asked.get("stage")
    if not isinstance(then, dict) or not isinstance(now, dict):
        return asked
    options = dict(now)
    if WIDTH not in then and now.get(WIDTH) in (0, AUTO):
        for name in (WIDTH, SCALE):
            options.pop(name, None)
    elif now.get(SCALE) == AUTO:
        del options[SCALE]
        options |= {SCALE: then[SCALE]} if SCALE in then else {}
    return asked | {"stage": options}


def find_newest(run: Training) -> Checkpoint | None:
    """The newest whole checkpoint, which rank 0 looks for; nothing is loaded.

    UserError where another run made it: one with another seed, stage, parent, or other averages.
    """
    newest = run.checkpoints.newest() if run.engine.ranks.is_first else None
    path = run.engine.group.broadcast(newest.path if newest else None)
    if path is None:
        return None
    checkpoint = Checkpoint(path)
    found = checkpoint.progress["identity"]
    asked = with_recorded_width(found, run.identity)
    if changed := differences(found, asked):
        raise UserError(
            f"{run.checkpoints.folder} was trained with other options ({'; '.join(changed)}); "
            "repeat the options of the first start, or choose another run="
        )
    refuse_new_widths(run.config.ema, checkpoint.state.shapes)
    if asked != run.identity:
        run.identity = run.export["identity"] = asked
    return checkpoint


def begin(run: Training, newest: Checkpoint | None) -> None:
    """Continue from the checkpoint that `find_newest` found, or begin at image 0."""
    if newest is None:
        run.tracker.record("start", 0, ranks=run.engine.ranks.world_size, **origin(run))
    else:
        continue_from(run, newest, why="start")


def origin(run: Training) -> dict[str, Any]:
    """Code, host and job of this attempt, for the event log; rank 0 alone writes it."""
    return session_facts() if run.engine.ranks.is_first else {}


def restore_checkpoint(run: Training) -> None:
    """Go back to the last good checkpoint after too many bad steps: a transient fault does not come again.

    UserError after too many returns, or where nothing was saved yet.
    """
    run.bad_steps.count_return(run.checkpoints.folder)
    run.saving.settle()
    run.recorder.restart()
    if (newest := find_newest(run)) is None:
        raise UserError(
            f"{run.bad_steps.config.in_a_row} steps in a row had no finite gradient, before anything was saved; lower "
            "train.learning_rate, raise train.schedule.warmup_images, or look at the samples that the log names"
        )
    continue_from(run, newest, why="too many steps in a row without a finite gradient")


def continue_from(run: Training, checkpoint: Checkpoint, why: str) -> None:
    """Load a checkpoint into engine, stream, clock and history; every rank must call it."""
    started = time.perf_counter()
    run.history = checkpoint.progress.get(HISTORY, "")
    run.engine.load(checkpoint.state)
    run.stream.load(checkpoint.progress["stream"])
    run.held_out.restore(checkpoint)
    run.clock.images_seen = run.saving.last_saved = checkpoint.images_seen
    run.tracker.record(
        "resume",
        run.clock.images_seen,
        ranks=run.engine.ranks.world_size,
        why=why,
        seconds=time.perf_counter() - started,
        **origin(run),
    )
    log.info("continuing at %d of %d images", run.clock.images_seen, run.clock.images)
    run.held_out.report_turn(run.clock.images_seen)  # in case it was saved, but not reported
