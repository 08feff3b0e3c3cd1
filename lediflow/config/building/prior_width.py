"""Determines the width of a flow's prior once, at the start of a run.

`stage.prior_widening=auto` is measured before the first step. Width and measurements are written to prior_width.json
at once, to every checkpoint and to the export. A continued run takes the width of its checkpoint; a run that was
stopped before its first checkpoint takes that of the file. So a run never uses two widths.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lediflow.config.building.inputs import Inputs
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.order import samples_of
from lediflow.disk import write_json
from lediflow.engine.checkpoints import Checkpoint
from lediflow.errors import UserError
from lediflow.flow.widening import (
    SCALE,
    WIDTH,
    Width,
    automatic_width,
    factor_for_scale,
    recorded_width,
)
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import CONFIG
from lediflow.records import object_if_any, read_dataclass, read_json
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind
from lediflow.stages.protocol import AUTO, given_width, scale_of
from lediflow.training.prior_width import (
    ABOUT,
    GIVEN,
    IMAGES,
    OF_TEACHER,
    AutomaticWidth,
    describe_origin,
    describe_start,
    measure_spread,
)
from lediflow.training.state import Training

log = logging.getLogger(__name__)


def width_facts(command: TrainCommand) -> dict[str, float | None]:
    """The width options for an export: None if they are yet to be measured; 0 and 1 without a learned prior."""
    is_widened = stage_kind(command.stage.name).widens_prior and command.prior == "learned"
    given = given_width(command.stage) if is_widened else Width()
    return {WIDTH: None, SCALE: None} if given is None else {WIDTH: given.added, SCALE: given.scale}


def settle_width(
    training: Training, newest: Checkpoint | None, command: TrainCommand, inputs: Inputs, folder: RunFolder
) -> None:
    """Set the width of the run's flow before its first step; no effect in other stages. Collective over all ranks."""
    stage = training.stage
    if not stage_kind(command.stage.name).has_width(stage) or stage.auxiliary is None:
        return
    width = stage.width
    if newest is not None:
        facts = newest.progress["export"]
        width, about = recorded_width(facts), facts.get(ABOUT, GIVEN)
        log_kept_width(width, command, training)
    elif width is not None:
        about = OF_TEACHER if inputs.teacher else GIVEN
    else:
        found = find_width(training, stage.auxiliary, command, inputs, folder)
        width, about = found.width, dataclasses.asdict(found)
    if training.engine.ranks.is_first and about.get("rule") == AUTO:
        write_width(folder.prior_width, about)
    if newest is None and training.engine.ranks.is_first:
        compare_with_warm_start(width, inputs)
    stage.width = width
    training.export |= {WIDTH: width.added, SCALE: width.scale, ABOUT: dict(about)}


def compare_with_warm_start(width: Width, inputs: Inputs) -> None:
    """Warn if the initial weights were trained with another width: they have to adapt to the new one."""
    if inputs.warm_start is None:
        return
    then = recorded_width(object_if_any(inputs.warm_start.path / CONFIG))
    if then != width:
        log.warning(
            "the flow of warm_start=%s started from a prior that is %s, this run's is %s; "
            "stage.prior_widening=%g stage.prior_scale=%g keeps the prior of warm_start",
            inputs.warm_start.path, describe_start(then), describe_start(width), *reversed(then),
        )  # fmt: skip


def log_kept_width(width: Width, command: TrainCommand, training: Training) -> None:
    """Log the width that a continued run keeps."""
    if WIDTH in training.identity["stage"]:
        log.info("the flow's start is %s, as when the run began", describe_start(width))
    elif given_width(command.stage) != width:
        log.info(
            "the run began when the default of stage.prior_widening was 0: it continues with 0, its prior is neither "
            "widened nor scaled"
        )


def find_width(
    training: Training, auxiliary: AuxiliaryModel, command: TrainCommand, inputs: Inputs, folder: RunFolder
) -> AutomaticWidth:
    """The width that an earlier start of this run measured; without one, measure it now. Collective."""
    engine, reader = training.engine, inputs.reader
    assert inputs.parent is not None  # the stage depends on it
    pins: dict[str, Any] = {
        "parent": inputs.parent.sha256,
        "data": reader.index.fingerprint,
        "prior_scale": scale_of(command.stage),
    }
    if (
        kept := engine.group.broadcast(
            read_width(folder.prior_width, pins) if engine.ranks.is_first else None
        )
    ) is not None:
        log.info("the flow's start is %s, as measured before", describe_start(kept.width))
        return kept
    split = "heldout"
    samples = samples_of(split, reader.index.table["key"], unseen_fraction(command, inputs))
    if not len(samples):
        split, samples = "train", samples_of("train", reader.index.table["key"], 0.0)
    scale = scale_of(command.stage)
    spread = measure_spread(auxiliary, reader, samples, engine)
    try:
        width = automatic_width(spread, scale)
    except ValueError as error:
        raise UserError(f"parent={inputs.parent.path}: {error}") from error
    found = AutomaticWidth(
        prior_widening=width,
        prior_scale=scale,
        factor=factor_for_scale(scale),
        **spread._asdict(),
        images=min(len(samples), IMAGES),
        split=split,
        parent=pins["parent"],
        data=pins["data"],
    )
    log_found_width(found, training, command)
    return found


def unseen_fraction(command: TrainCommand, inputs: Inputs) -> float:
    """Fraction of the images that neither this run nor its parent trains on (larger held-out sets contain smaller)."""
    assert inputs.parent is not None
    own, theirs = command.data.held_out_fraction, inputs.parent.facts.get("data", {})
    is_of_these = theirs.get("fingerprint") == inputs.reader.index.fingerprint
    return min(own, theirs.get("held_out_fraction") or 0.0) if is_of_these else own


def log_found_width(found: AutomaticWidth, training: Training, command: TrainCommand) -> None:
    """Log the width and record its event; warn if it was measured on training images."""
    training.tracker.record(ABOUT, training.clock.images_seen, **dataclasses.asdict(found))
    if not training.engine.ranks.is_first:
        return
    log.info(
        "the flow's start is %s: %s", describe_start(found.width), describe_origin(dataclasses.asdict(found))
    )
    if found.split != "heldout":
        log.warning(
            "data.held_out_fraction of this run (%g) or of its parent holds out no images, so the prior's width was "
            "measured on training images; if the parent has memorised them, the width is too small. Hold images out "
            "in both, or give stage.prior_widening a number",
            command.data.held_out_fraction,
        )


def read_width(path: Path, pins: dict[str, Any]) -> AutomaticWidth | None:
    """The width in the file; None if it cannot be read, or was measured with another parent, data or scale."""
    if not path.is_file():
        return None
    advice = "the width is measured again (no training step used the old one)"
    try:
        found: AutomaticWidth = read_dataclass(AutomaticWidth, read_json(path, advice), str(path))
    except ValueError as error:
        log.warning("%s; %s", error, advice)
        return None
    if {name: getattr(found, name) for name in pins} == pins:
        return found
    log.warning(
        "%s was measured with another parent, other data or another stage.prior_scale; %s", path, advice
    )
    return None


def write_width(path: Path, about: dict[str, Any]) -> None:
    """Write the file, unless it has this content already."""
    if object_if_any(path) != about:
        write_json(path, about)
