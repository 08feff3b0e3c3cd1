"""How wide a flow's start is: fixed when a run begins, and kept.

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
from lediflow.flow.widening import Width, automatic_width, factor_beside
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import CONFIG
from lediflow.records import object_if_any, read_dataclass, read_json
from lediflow.stages.flow import AUTO, FlowStage, FlowStageConfig, given_width
from lediflow.training.identity import SCALE, WIDTH
from lediflow.training.loop import Training
from lediflow.training.prior_spread import IMAGES, measure_spread
from lediflow.training.prior_width import (
    ABOUT,
    GIVEN,
    AutomaticWidth,
    described,
    recorded_width,
    widened,
)
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def width_facts(command: TrainCommand) -> dict[str, float | None]:
    """The width that the command names, for an export; None where it is to be found. Without a learned prior none."""
    is_widened = isinstance(command.stage, FlowStageConfig) and command.prior == "learned"
    given = given_width(command.stage) if is_widened else Width()
    return {WIDTH: None, SCALE: None} if given is None else {WIDTH: given.added, SCALE: given.scale}


def settle_width(
    training: Training, newest: Checkpoint | None, command: TrainCommand, inputs: Inputs, folder: RunFolder
) -> None:
    """Fix the width of the run's flow, before its first step. Every rank must call it; other stages have none."""
    stage = training.stage
    if not isinstance(stage, FlowStage) or stage.auxiliary is None:
        return
    width = stage.width
    if newest is not None:
        facts = newest.progress["export"]
        width, about = recorded_width(facts), facts.get(ABOUT, GIVEN)
        say_kept(width, command, training)
    elif width is not None:
        about = GIVEN
    else:
        found = found_width(training, stage.auxiliary, command, inputs, folder)
        width, about = found.width, dataclasses.asdict(found)
    if training.engine.ranks.is_first and about.get("rule") == AUTO:
        keep(folder.prior_width, about)
    if newest is None and training.engine.ranks.is_first:
        compare_with_warm_start(width, inputs)
    stage.width = width
    training.export |= {WIDTH: width.added, SCALE: width.scale, ABOUT: dict(about)}


def compare_with_warm_start(width: Width, inputs: Inputs) -> None:
    """Say where the initial weights are of a flow that starts otherwise: they have to learn the new start."""
    if inputs.warm_start is None:
        return
    then = recorded_width(object_if_any(inputs.warm_start.path / CONFIG))
    if then != width:
        log.warning(
            "warm_start=%s was trained from a start that is %s, this run's is %s; "
            "stage.prior_widening=%g stage.prior_scale=%g begins where it ended",
            inputs.warm_start.path, widened(then), widened(width), *reversed(then),
        )  # fmt: skip


def say_kept(width: Width, command: TrainCommand, training: Training) -> None:
    """A line of the log about the width of a run that goes on."""
    if WIDTH in training.identity["stage"]:
        log.info("the flow's start is %s, as when the run began", widened(width))
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
    pins = {
        "parent": inputs.parent.sha256,
        "data": reader.index.fingerprint,
        "prior_scale": command.stage.prior_scale,
    }
    if (
        kept := engine.share(kept_width(folder.prior_width, pins) if engine.ranks.is_first else None)
    ) is not None:
        log.info("the flow's start is %s, as measured before", widened(kept.width))
        return kept
    split = "heldout"
    samples = samples_of(split, reader.index.table["key"], command.data.held_out_fraction)
    if not len(samples):
        split, samples = "train", samples_of("train", reader.index.table["key"], 0.0)
    scale = command.stage.prior_scale
    spread = measure_spread(auxiliary, reader, samples, engine)
    try:
        width = automatic_width(spread, scale)
    except ValueError as error:
        raise UserError(f"parent={inputs.parent.path}: {error}") from error
    found = AutomaticWidth(
        prior_widening=width,
        prior_scale=scale,
        factor=factor_beside(scale),
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
    log.info("the flow's start is %s: %s", widened(found.width), described(dataclasses.asdict(found)))
    if found.split != "heldout":
        log.warning(
            "data.held_out_fraction=%g holds nothing out, so the prior's width was measured on images that the parent "
            "may have memorised: it is too small if it has. Hold images out, or give stage.prior_widening a number",
            command.data.held_out_fraction,
        )


def kept_width(path: Path, pins: dict[str, Any]) -> AutomaticWidth | None:
    """What the file says, if it can be read and is of this parent and data."""
    if not path.is_file():
        return None
    advice = "the width is measured again, since no step was made with it"
    try:
        found: AutomaticWidth = read_dataclass(AutomaticWidth, read_json(path, advice), str(path))
    except ValueError as error:
        log.warning("%s; %s", error, advice)
        return None
    if {name: getattr(found, name) for name in pins} == pins:
        return found
    log.warning("%s is of another parent or other data, or of another scale; %s", path, advice)
    return None


def keep(path: Path, about: dict[str, Any]) -> None:
    """Write the file where it does not say so already."""
    if object_if_any(path) != about:
        write_json(path, about)
