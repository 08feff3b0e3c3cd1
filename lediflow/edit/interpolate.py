"""`python -m lediflow.edit interpolate`: frames between two photographs, or two seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from lediflow.config.building.editor import load_editor, origin_of, record_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import InterpolateCommand
from lediflow.editing.codec_space import data_of, picture_shape
from lediflow.editing.folder import EditFolder
from lediflow.editing.interpolation import WAYS, Ends, frame_labels, frames_along, noise_of_seeds
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.editing.photographs import centred, refuse_inside
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.pictures import picture_arrays


def run(config: DictConfig) -> None:
    """Frames between two images or seeds: the chosen way as pictures, all ways in comparison.png."""
    command: InterpolateCommand = typed(config)
    refuse_inside(command.output, [("images", path) for path in command.images])
    pipeline = load_editor(command, command.frames, inverts_sampler=True)
    command = pipeline.resolved(command)
    ends, about, warnings = ends_of(command, pipeline)
    made = {
        way: frames_along(pipeline, ends, way, command.frames, command, command.batch_size) for way in WAYS
    }
    chosen = made[f"{command.space}, {command.path}"]
    folder = EditFolder(Path(command.output), origin_of("interpolate", command, {"ends": about}))
    arrays = picture_arrays(chosen.images)
    folder.add_numbered(arrays)
    columns = frame_labels(about, command.frames)
    folder.add_strip("strip.png", arrays, columns, f"{command.space}, {command.path}")
    folder.add_animation("strip.gif", arrays, command.frame_seconds)
    grid = labelled_grid([one.images for one in made.values()], list(made), columns)
    folder.add_picture("comparison.png", grid)
    numbers = {way: one.numbers for way, one in made.items()}
    result = {"ends": about, "ways": numbers, "nfe": chosen.nfe, "warnings": warnings}
    folder.write(record_of("interpolate", command, result))
    print(f"interpolated: {command.frames} frames, strip.png, strip.gif, comparison.png in {folder.root}")
    for way, values in numbers.items():
        middle = {name: values[name][command.frames // 2] for name in ("w_nll", "prior_nll")}
        found = ", ".join(f"{name} {value:.3g}" for name, value in middle.items())
        print(f"  {way}: in the middle {found} nats per dimension")


def ends_of(
    command: InterpolateCommand, pipeline: LeDiFlowPipeline
) -> tuple[Ends, list[dict[str, Any]], list[str]]:
    """Noise and latents of the two ends, what they are for the record, and warnings."""
    method = command.latent_method(is_flow_map=False)
    if command.seeds:
        w = noise_of_seeds(pipeline, command.seeds)
        return Ends(w, noise_to_latents(pipeline, w, method)), [{"seed": seed} for seed in command.seeds], []
    pictures = [centred(path, "images", *picture_shape(pipeline)) for path in command.images]
    z = encoded(pipeline, data_of(pipeline, torch.cat([picture.signal for picture in pictures])))
    back = latents_to_noise(pipeline, z, method)
    about = [
        {"sha256": picture.sha256, "round_trip": back.record(number)}
        for number, picture in enumerate(pictures)
    ]
    return Ends(back.noise, z), about, back.warnings(command.images, command.round_trip_warning)
