"""`python -m lediflow.edit attribute`: a photograph with more and with less of an attribute."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from lediflow.config.building.editor import load_editor, origin_of, record_of, weights_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import AttributeCommand
from lediflow.editing.attributes import Found, described, found_between, moved_along
from lediflow.editing.codec_space import picture_shape
from lediflow.editing.direction_files import FILE, direction_bytes, read_direction, with_estimation
from lediflow.editing.folder import EditFolder
from lediflow.editing.photographs import centred, refuse_inside
from lediflow.editing.picture_sets import read_set
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.pictures import picture_arrays

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """A photograph along a direction between two sets of pictures."""
    command: AttributeCommand = typed(config)
    files = [("image", command.image), ("direction", command.direction)]
    refuse_inside(command.output, [(option, path) for option, path in files if path is not None])
    stored = None if command.direction is None else read_direction(command.direction)
    command = with_estimation(command, None if stored is None else stored.direction)
    pipeline = load_editor(
        command,
        2 * len(command.strengths),
        inverts_sampler=command.space == "w",
        inverts_flow=command.x_from == "image",
    )
    command = pipeline.resolved(command)
    picture = centred(command.image, "image", *picture_shape(pipeline))
    weights = weights_of(command)
    if stored is not None:
        stored.check_models(weights)
    found = Found(stored.direction, stored.sets) if stored else direction_of_sets(command, pipeline)
    for warning in found.warnings:
        log.warning("%s", warning)
    move = functools.partial(
        moved_along, pipeline, direction=found.direction, strengths=command.strengths, config=command,
        x_from=command.x_from, batch_size=command.batch_size,
    )  # fmt: skip
    along = move(picture.pixels[None])
    warnings = [*found.warnings, *along.own.warnings(command.image, command.round_trip_warning)]
    about = {
        "image": {
            "sha256": picture.sha256,
            "round_trip": along.own.round_trips(),
        },
        "direction": {**found.direction.record(), "sets": found.sets},
    }
    folder = EditFolder(Path(command.output), origin_of("attribute", command, about))
    arrays = picture_arrays(along.images[0])
    names = folder.add_numbered(arrays)
    columns = ["photograph", *(f"strength {strength:g}" for strength in command.strengths)]
    shown = np.concatenate([picture_arrays(picture.signal), arrays])
    folder.add_strip("strip.png", shown, columns, f"along the attribute, in {command.space}")
    folder.files[FILE] = direction_bytes(found.direction, weights, found.sets)
    own_rows = along.rows(command.strengths)
    rows: dict[str, list[dict[str, Any]]] = {
        "strengths": [{"file": name, **row} for name, row in zip(names, own_rows, strict=True)]
    }
    if found.held_out is not None:
        rows["held_out"] = move(found.held_out).rows(command.strengths)
    for file in found.passed_over:
        log.warning("%s=: passed over %s, %s", file["set"], file["file"], file["reason"])
    result = {**about, **rows, "passed_over": found.passed_over, "warnings": warnings}
    folder.write(record_of("attribute", command, result))
    print(
        f"moved along the attribute: {len(arrays)} images, strip.png (image first), {FILE} in {folder.root}"
    )
    print("\n".join(described(found.direction, rows)))


def direction_of_sets(command: AttributeCommand, pipeline: LeDiFlowPipeline) -> Found:
    """The direction between the pictures of with= and those of without=."""
    shape = picture_shape(pipeline)
    assert command.with_images is not None and command.without_images is not None
    having = read_set(command.with_images, "with", *shape)
    lacking = read_set(command.without_images, "without", *shape)
    log.info("encoding %d pictures with the attribute, %d without", len(having.hashes), len(lacking.hashes))
    return found_between(
        pipeline,
        having,
        lacking,
        command,
        space=command.space,
        estimator=command.estimator,
        batch_size=command.batch_size,
    )
