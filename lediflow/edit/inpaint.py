"""`python -m lediflow.edit inpaint`: new pixels inside a mask."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from lediflow.config.building.editor import load_editor, origin_of, record_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import InpaintCommand
from lediflow.editing.codec_space import picture_shape
from lediflow.editing.folder import EditFolder
from lediflow.editing.inpainting import inpaint, measures, prepared
from lediflow.editing.pairs import paired_files, read_pairs
from lediflow.editing.photographs import refuse_inside
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.options import batches

log = logging.getLogger(__name__)

MOST_ROWS = 32  # of strip.png where several photographs are inpainted
LEAK = (
    "z_from=image: z was encoded from the whole image, so it has seen what the mask hides, and results may show it "
    "again; to remove an object use z_from=masked or z_from=sampler"
)
SEEN_BY_STRENGTH = (
    "strength below 1: the start is mixed with the noise of the whole image, which has seen what the mask hides, and "
    "results may show it again; to remove an object use strength=1"
)


def run(config: DictConfig) -> None:
    """New pixels inside a mask."""
    command: InpaintCommand = typed(config)
    files = paired_files(command)
    given = [("image", pair.image) for pair in files] + [("mask", pair.mask) for pair in files if pair.mask]
    refuse_inside(command.output, given)
    is_mixed = command.z_from == "sampler" and command.strength < 1
    pipeline = load_editor(command, command.count * len(files), inverts_flow=True, inverts_sampler=is_mixed)
    command = pipeline.resolved(command)
    pairs = read_pairs(command, files, *picture_shape(pipeline))
    warnings = [LEAK] if command.z_from == "image" else []
    if command.strength < 1:
        warnings.append(SEEN_BY_STRENGTH)
    for warning in warnings:
        log.warning("%s", warning)
    warnings += dict.fromkeys(pair.mask.warning for pair in pairs if pair.mask.warning)  # logged already
    folder = EditFolder(Path(command.output), origin_of("inpaint", command, {}))
    groups = batches(command.count, command.batch_size)
    rows, labels, records, nfe = [], [], [], 0
    for place, pair in enumerate(pairs):
        task = prepared(
            pipeline, pair.picture.pixels, pair.mask.amount, command, command.z_from,
            strength=command.strength, is_pasted=command.paste,
        )  # fmt: skip
        made = [inpaint(pipeline, task, numbers, command) for numbers in groups]
        pixels = torch.cat([one.pixels for one in made])
        arrays = channels_last(pixels)
        names = folder.add_numbered(arrays, before=place * command.count, more=pair.record())
        rows.append(np.concatenate([channels_last(pair.shown), arrays]))
        labels.append(f"results from, {names[0]}")
        line_error = max(one.line_error for one in made)
        records.append({**pair.record(), "files": names, "line_error": line_error, **measures(task, pixels)})
        warnings += task.own.warnings(files[place].image, command.round_trip_warning)
        nfe = max(nfe, *(one.nfe for one in made))
    is_single = command.image is not None
    about: dict[str, Any] = records[0] if is_single else {"pictures": records}
    columns = ["photograph", "hidden part", *(f"result {number}" for number in range(command.count))]
    folder.add_picture(
        "strip.png",
        labelled_grid(rows[:MOST_ROWS], labels[:MOST_ROWS], columns),
        pairs[0].record() if is_single else {"pictures": records[:MOST_ROWS]},
    )
    result = {"nfe": nfe, "line_error": max(one["line_error"] for one in records), "warnings": warnings}
    folder.write(record_of("inpaint", command, {**about, **result}))
    print(
        f"inpainted: {command.count * len(pairs)} images, and strip.png (image, hidden part, results) in {folder.root}"
    )


def channels_last(pixels: torch.Tensor) -> np.ndarray:
    """Bytes, batch x channels x height x width, as arrays with channels last."""
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
