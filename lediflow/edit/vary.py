"""`python -m lediflow.edit vary`: other versions of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from lediflow.config.building.editor import load_editor, origin_of, record_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import VaryCommand
from lediflow.editing.codec_space import data_of, picture_shape
from lediflow.editing.folder import EditFolder
from lediflow.editing.photographs import centred, refuse_inside
from lediflow.editing.strength import own_of
from lediflow.editing.variation import parts_of, varied
from lediflow.sampling.options import batches
from lediflow.sampling.pictures import picture_arrays


def run(config: DictConfig) -> None:
    """Other versions of an image."""
    command: VaryCommand = typed(config)
    refuse_inside(command.output, [("image", command.image)])
    parts = parts_of(command.keep, command.strength)
    pipeline = load_editor(command, command.count, inverts_flow="x" in parts, inverts_sampler="w" in parts)
    command = pipeline.resolved(command)
    picture = centred(command.image, "image", *picture_shape(pipeline))
    own = own_of(pipeline, data_of(pipeline, picture.signal), command, parts)
    trips = {"round_trip": own.round_trips()} if parts else {}
    about: dict[str, Any] = {"image": {"sha256": picture.sha256, **trips}}
    warnings = own.warnings(command.image, command.round_trip_warning)
    folder = EditFolder(Path(command.output), origin_of("vary", command, about))
    rows, nfe = [picture_arrays(picture.signal)], 0
    for numbers in batches(command.count, command.batch_size):
        ids = torch.tensor(numbers, dtype=torch.int64, device=pipeline.device)
        made = varied(pipeline, own, ids, command, keep=command.keep, strength=command.strength)
        rows.append(picture_arrays(made.images))
        folder.add_numbered(rows[-1], numbers[0])
        nfe = made.nfe
    columns = ["photograph", *(f"result {number}" for number in range(command.count))]
    label = f"keeps {command.keep}, strength {command.strength:g}"
    folder.add_strip("strip.png", np.concatenate(rows), columns, label)
    folder.write(record_of("vary", command, {**about, "nfe": nfe, "warnings": warnings}))
    print(
        f"varied: {command.count} images that keep {command.keep}, and strip.png (the image first) in {folder.root}"
    )
