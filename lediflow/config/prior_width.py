"""The width that a flow's start is widened by: fixed when a run begins, and kept.

What `stage.prior_widening=auto` stands for is measured once, before the first step, and written to prior_width.json at
once, to every checkpoint and to the export with what it rests on. A run that goes on has the width of its checkpoint,
one that was stopped before its first checkpoint that of the file: there are never two in one run.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lediflow.config.inputs import Inputs
from lediflow.config.schema import TrainCommand
from lediflow.data.files import write_json
from lediflow.data.streams.split import samples_of
from lediflow.engine.checkpoints import Checkpoint
from lediflow.errors import UserError
from lediflow.flow.widening import FACTOR, automatic_width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import CONFIG
from lediflow.records import object_if_any, read_dataclass, read_json
from lediflow.stages.flow import AUTO, FlowStage
from lediflow.training.identity import WIDTH
from lediflow.training.loop import Training
from lediflow.training.prior_spread import IMAGES, measure_spread
from lediflow.training.prior_width import ABOUT, GIVEN, AutomaticWidth, described
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def given_width(command: TrainCommand) -> float | None:
    """The number that the command names; None for one that is still to be found. Without a learned prior 0."""
    asked = getattr(command.stage, WIDTH, 0.0)
    if command.prior == "gaussian":
        return 0.0
    return None if asked == AUTO else float(asked)


def settle_width(
    training: Training, newest: Checkpoint | None, command: TrainCommand, inputs: Inputs, folder: RunFolder
) -> None:
    """Fix the width of the run's flow, before its first step. Every rank must call it; other stages have none."""
    stage, width = training.stage, given_width(command)
    if not isinstance(stage, FlowStage) or stage.auxiliary is None:
        return
    if newest is not None:
        facts = newest.progress["export"]
        width, about = float(facts.get(WIDTH, 0.0)), facts.get(ABOUT, GIVEN)
        say_kept(width, command, training)
    elif width is not None:
        about = GIVEN
    else:
        found = found_width(training, stage.auxiliary, command, inputs, folder)
        width, about = found.prior_widening, dataclasses.asdict(found)
    if training.engine.ranks.is_first and about.get("rule") == AUTO:
        keep(folder.prior_width, about)
    if newest is None and training.engine.ranks.is_first:
        compare_with_warm_start(width, inputs)
    stage.widening = width
    training.export |= {WIDTH: width, ABOUT: dict(about)}


def compare_with_warm_start(width: float, inputs: Inputs) -> None:
    """Say where the initial weights are of a flow that starts otherwise: they have to learn the new start."""
    if inputs.warm_start is None:
        return
    then = float(object_if_any(inputs.warm_start.path / CONFIG).get(WIDTH) or 0.0)
    if then != width:
        log.warning(
            "warm_start=%s was trained from a prior widened by %g, this run's is widened by %g; "
            "stage.prior_widening=%g begins where it ended",
            inputs.warm_start.path, then, width, then,
        )  # fmt: skip


def say_kept(width: float, command: TrainCommand, training: Training) -> None:
    """A line of the log about the width of a run that goes on."""
    if WIDTH in training.identity["stage"]:
        log.info("the flow's start is widened by %g, as when the run began", width)
    elif command.stage.prior_widening == AUTO:
        log.info(
            "the run began when stage.prior_widening was 0 by default: it goes on with 0, its prior is not widened"
        )


def found_width(
    training: Training, auxiliary: AuxiliaryModel, command: TrainCommand, inputs: Inputs, folder: RunFolder
) -> AutomaticWidth:
    """What an earlier start measured, or what is measured now."""
    engine, reader = training.engine, inputs.reader
    assert inputs.parent is not None  # the stage was built on it
    pins = {"parent": inputs.parent.sha256, "data": reader.index.fingerprint}
    if (
        kept := engine.share(kept_width(folder.prior_width, pins) if engine.ranks.is_first else None)
    ) is not None:
        log.info("the flow's start is widened by %g, as measured before", kept.prior_widening)
        return kept
    split = "heldout"
    samples = samples_of(split, reader.index.table["key"], command.data.held_out_fraction)
    if not len(samples):
        split, samples = "train", samples_of("train", reader.index.table["key"], 0.0)
    spread = measure_spread(auxiliary, reader, samples, engine)
    try:
        width = automatic_width(spread)
    except ValueError as error:
        raise UserError(f"parent={inputs.parent.path}: {error}") from error
    found = AutomaticWidth(
        prior_widening=width,
        factor=FACTOR,
        **spread._asdict(),
        images=min(len(samples), IMAGES),
        split=split,
        parent=pins["parent"],
        data=pins["data"],
    )
    say_found(found, training, command)
    return found


def say_found(found: AutomaticWidth, training: Training, command: TrainCommand) -> None:
    """The log's line and the event."""
    training.tracker.record(ABOUT, training.clock.images_seen, **dataclasses.asdict(found))
    if not training.engine.ranks.is_first:
        return
    log.info(
        "the flow's start is widened by %g: %s", found.prior_widening, described(dataclasses.asdict(found))
    )
    if found.split != "heldout":
        log.warning(
            "data.held_out_fraction=%g holds nothing out, so the prior's width was measured on images that the parent "
            "may have memorised: it is too small if it has. Hold images out, or give stage.prior_widening a number",
            command.data.held_out_fraction,
        )


def kept_width(path: Path, pins: dict[str, str]) -> AutomaticWidth | None:
    """What the file says, if it can be read and is of this parent and data."""
    if not path.is_file():
        return None
    advice = "the width is measured again, since no step was made with it"
    try:
        found: AutomaticWidth = read_dataclass(AutomaticWidth, read_json(path, advice), str(path))
    except ValueError as error:
        log.warning("%s; %s", error, advice)
        return None
    if {"parent": found.parent, "data": found.data} == pins:
        return found
    log.warning("%s is of another parent or other data; %s", path, advice)
    return None


def keep(path: Path, about: dict[str, Any]) -> None:
    """Write the file where it does not say so already."""
    if object_if_any(path) != about:
        write_json(path, about)
