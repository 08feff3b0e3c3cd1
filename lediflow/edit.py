"""`python -m lediflow.edit interpolate|vary|inpaint|anonymise`: edit photographs with trained models."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from lediflow.claims import NAMED
from lediflow.config.building.models import stored_path
from lediflow.config.building.pipeline import load_pipeline, pipeline_hashes
from lediflow.config.composition.advice import require_export
from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import (
    AnonymiseCommand,
    InpaintCommand,
    InterpolateCommand,
    VaryCommand,
)
from lediflow.config.submission import register_launchers
from lediflow.editing.anonymisation.run import anonymise_folder, read_request
from lediflow.editing.config import EditOptions
from lediflow.editing.folder import EditFolder, Origin
from lediflow.editing.inpainting import inpaint
from lediflow.editing.interpolation import WAYS, Ends, frames_along, noise_of_seeds
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.editing.masks import mask_of
from lediflow.editing.photographs import READERS, centred, refuse_inside
from lediflow.editing.variation import start_of, with_latent_of, with_start
from lediflow.errors import BAD_REQUEST, UserError
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.pictures import picture_arrays
from lediflow.sampling.pipeline import is_flow_map

log = logging.getLogger(__name__)

# options that results do not depend on, or that name places; records have the latter apart
IRRELEVANT = ("batch_size", "device", "paths", "runtime", "metadata", "round_trip_warning")
PLACES = ("run", "sampler", "output", "codec_path", "image", "images", "mask")
PRIVATE = ("source", "masks", "key", "persons", "mapping")  # places that no record has
SEEN = (
    "below 1, the surrogate is made from the latent of the face itself, which identifies the person; it may resemble "
    "them. Measure it before such pictures leave the house"
)
HIDDEN = torch.tensor(128)  # the level of hidden pixels in strip.png
LEAK = (
    "z_from=image: z was encoded from the whole image, so it has seen what the mask hides, and results may show it "
    "again; to remove an object use z_from=masked or z_from=sampler"
)
USAGE = """\
Edit photographs with trained models.

  python -m lediflow.edit interpolate run=FLOW_RUN sampler=SAMPLER_RUN output=DIR images=[A,B]    frames between two
  python -m lediflow.edit vary        run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE      other versions
  python -m lediflow.edit inpaint     run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE mask=FILE
                                                                                                  new pixels in a mask
  python -m lediflow.edit anonymise   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR source=DIR masks=DIR key=FILE
                                                                                                  other faces
Each has --help."""


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(USAGE)
        sys.exit(0 if words else BAD_REQUEST)
    name, *arguments = words
    if name not in TASKS:
        nearest = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        print(
            f"error: lediflow.edit {name}: the first word is one of {', '.join(TASKS)}; did you mean {nearest}?",
            file=sys.stderr,
        )
        sys.exit(BAD_REQUEST)
    sys.argv[1:] = ["metadata=false" if word == "--no-metadata" else word for word in arguments]
    run_command(f"edit_{name}", TASKS[name], register_launchers)


def run_interpolate(config: DictConfig) -> None:
    """Frames between two images or seeds: the chosen way as pictures, all ways in comparison.png."""
    command: InterpolateCommand = typed(config)
    refuse_inside(command.output, [("images", path) for path in command.images])
    pipeline = load_editor(command, command.frames, inverts_sampler=True, reads_images=bool(command.images))
    command = pipeline.resolved(command)
    ends, about, warnings = ends_of(command, pipeline)
    made = {
        way: frames_along(pipeline, ends, way, command.frames, command, command.batch_size) for way in WAYS
    }
    chosen = made[f"{command.space}, {command.path}"]
    folder = EditFolder(Path(command.output), origin_of("interpolate", command, {"ends": about}))
    arrays = picture_arrays(chosen.images)
    folder.add_numbered(arrays)
    folder.add_strip("strip.png", arrays)
    folder.add_animation("strip.gif", arrays, command.frame_seconds)
    folder.add_picture("comparison.png", labelled_grid([one.images for one in made.values()], list(made)))
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
    shape = pipeline.image_size, pipeline.velocity.spec.image_channels
    pictures = [centred(path, "images", *shape) for path in command.images]
    z = encoded(pipeline, torch.cat([picture.signal for picture in pictures]))
    back = latents_to_noise(pipeline, z, method)
    about = [
        {"sha256": picture.sha256, "round_trip": back.record(number)}
        for number, picture in enumerate(pictures)
    ]
    return Ends(back.noise, z), about, back.warnings(command.images, command.round_trip_warning)


def run_vary(config: DictConfig) -> None:
    """Other versions of an image."""
    command: VaryCommand = typed(config)
    refuse_inside(command.output, [("image", command.image)])
    pipeline = load_editor(command, command.count, inverts_flow=command.keep == "x")
    command = pipeline.resolved(command)
    picture = centred(command.image, "image", pipeline.image_size, pipeline.velocity.spec.image_channels)
    about: dict[str, Any] = {"image": {"sha256": picture.sha256}}
    warnings: list[str] = []
    x = None
    if command.keep == "x":
        back = start_of(pipeline, picture.signal, command)
        x, about["image"]["round_trip"] = back.noise, back.record(0)
        warnings = back.warnings([command.image], command.round_trip_warning)
    folder = EditFolder(Path(command.output), origin_of("vary", command, about))
    rows, nfe = [picture_arrays(picture.signal)], 0
    for numbers in batches(command):
        ids = torch.tensor(numbers, dtype=torch.int64, device=pipeline.device)
        if x is None:
            made = with_latent_of(pipeline, picture.signal, ids, command)
        else:
            made = with_start(pipeline, x, ids, command)
        rows.append(picture_arrays(made.images))
        folder.add_numbered(rows[-1], numbers[0])
        nfe = made.nfe
    folder.add_strip("strip.png", np.concatenate(rows))
    folder.write(record_of("vary", command, {**about, "nfe": nfe, "warnings": warnings}))
    print(
        f"varied: {command.count} images that keep {command.keep}, and strip.png (the image first) in {folder.root}"
    )


def run_inpaint(config: DictConfig) -> None:
    """New pixels inside a mask."""
    command: InpaintCommand = typed(config)
    given = [("image", command.image), ("mask", command.mask)]
    refuse_inside(command.output, [(option, path) for option, path in given if path is not None])
    pipeline = load_editor(command, command.count, inverts_flow=True)
    command = pipeline.resolved(command)
    size, channels = pipeline.image_size, pipeline.velocity.spec.image_channels
    picture = READERS[command.fit](command.image, "image", size, channels)
    mask = mask_of(
        picture.source_size,
        file=command.mask,
        rectangle=command.rectangle,
        polygon=command.polygon,
        blur=command.blur,
        side=size,
    )
    warnings = [LEAK] if command.z_from == "image" else []
    for warning in warnings:
        log.warning("%s", warning)
    about = {"image": {"sha256": picture.sha256}, "mask": mask.record()}
    folder = EditFolder(Path(command.output), origin_of("inpaint", command, about))
    shown = torch.where(mask.amount[0] == 0, picture.pixels, HIDDEN).to(torch.uint8)
    rows, nfe, line_error = [channels_last(picture.pixels[None]), channels_last(shown[None])], 0, 0.0
    for numbers in batches(command):
        made = inpaint(pipeline, picture.pixels, mask.amount, numbers, command, command.z_from)
        rows.append(channels_last(made.pixels))
        folder.add_numbered(rows[-1], numbers[0])
        nfe, line_error = made.nfe, max(line_error, made.line_error)
    folder.add_strip("strip.png", np.concatenate(rows))
    result = {**about, "nfe": nfe, "line_error": line_error, "warnings": warnings}
    folder.write(record_of("inpaint", command, result))
    print(f"inpainted: {command.count} images, and strip.png (image, hidden part, results) in {folder.root}")


def run_anonymise(config: DictConfig) -> None:
    """Other faces on the photographs of a folder; nothing that is written says whose they were."""
    command: AnonymiseCommand = typed(config)
    request = read_request(command)
    pipeline = load_editor(
        command, len(request.sources), inverts_sampler=command.strength < 1, inverts_flow=True
    )
    command = pipeline.resolved(command)
    if command.strength < 1:
        log.warning("strength=%g: %s", command.strength, SEEN)
    record = record_of("anonymise", command, {"warnings": [SEEN] if command.strength < 1 else []})
    del record["places"]
    outcome = anonymise_folder(pipeline, command, request, record, origin_of("anonymise", command, {}))
    kept = f", and {outcome.kept} of an earlier start kept" if outcome.kept else ""
    print(f"anonymised: {outcome.made} photographs{kept}, edit.json in {command.output}")
    if outcome.passed_over:
        raise UserError(
            f"{len(outcome.passed_over)} of {len(request.sources)} photographs have no result: "
            f"{named_sentences(outcome.passed_over)}"
        )


TASKS: dict[str, Callable[[DictConfig], None]] = {
    "interpolate": run_interpolate,
    "vary": run_vary,
    "inpaint": run_inpaint,
    "anonymise": run_anonymise,
}


def load_editor(
    command: EditOptions,
    images: int,
    *,
    inverts_sampler: bool = False,
    inverts_flow: bool = False,
    reads_images: bool = True,
) -> LeDiFlowPipeline:
    """The pipeline; UserError for models that this edit is impossible with: what it inverts must be a velocity."""
    flow = RunFolder(Path(command.run))
    require_export(flow, "the flow model", "python -m lediflow.train stage=flow ...")
    facts = flow.exported_facts()
    if facts["prior"] == "gaussian":
        raise UserError(
            f"run={command.run} is a Gaussian baseline: it has no latent z of an image to edit with; give a flow with "
            "a learned prior (prior=learned) and sampler="
        )
    if reads_images and facts["codec"]["name"] != "pixels":
        raise UserError(
            f"run={command.run} was trained on latents of codec={facts['codec']['name']}; photographs are edited with "
            "models of pixels only (codec=pixels). interpolate seeds=[0,1] needs no photograph"
        )
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    checked = [
        ("run", inverts_flow, pipeline.velocity),
        ("sampler", inverts_sampler, pipeline.latent_sampler),
    ]
    for option, is_inverted, model in checked:
        if is_inverted and is_flow_map(model):
            raise UserError(
                f"{option}={getattr(command, option)} is a flow map, which has no velocity to follow from image to "
                "noise or along known pixels; give its teacher, or another run without stage.objective=flow_map"
            )
    pipeline.check_labels(command)
    return pipeline.use(command.runtime, command.precision, images=images)


def named_sentences(messages: list[str]) -> str:
    """The first few of many messages, for one sentence."""
    more = f"; and {len(messages) - NAMED} more, see above" if len(messages) > NAMED else ""
    return "; ".join(messages[:NAMED]) + more


def batches(command: VaryCommand | InpaintCommand) -> Iterator[list[int]]:
    """The numbers of the pictures, in batches."""
    for first in range(0, command.count, command.batch_size):
        yield list(range(first, min(first + command.batch_size, command.count)))


def channels_last(pixels: torch.Tensor) -> np.ndarray:
    """Bytes, batch x channels x height x width, as arrays with channels last."""
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def settings_of(command: EditOptions) -> dict[str, Any]:
    """The options that results depend on, without places."""
    left_out = (*IRRELEVANT, *PLACES, *PRIVATE)
    return {key: value for key, value in dataclasses.asdict(command).items() if key not in left_out}


def weights_of(command: EditOptions) -> dict[str, str]:
    """SHA-256 of the weights of the three models."""
    parent = RunFolder(Path(command.run)).exported_facts()["parent"]["sha256"]
    return {**pipeline_hashes(command.run, command.sampler), "auxiliary": parent}


def origin_of(name: str, command: EditOptions, about: dict[str, Any]) -> Origin | None:
    """What is written into every picture; None if metadata=false."""
    if not command.metadata:
        return None
    return {
        "command": f"lediflow.edit {name}",
        "settings": settings_of(command),
        "weights": weights_of(command),
        **about,
    }


def record_of(name: str, command: EditOptions, result: dict[str, Any]) -> dict[str, Any]:
    """The content of edit.json, except for the names of the files."""
    options = dataclasses.asdict(command)
    places = {key: options[key] for key in PLACES if options.get(key)}
    stored = {
        key: [stored_path(path) for path in value] if isinstance(value, list) else stored_path(value)
        for key, value in places.items()
    }
    return {
        "command": name,
        "settings": settings_of(command),
        "weights": weights_of(command),
        "places": stored,
        **result,
    }


if __name__ == "__main__":
    main()
