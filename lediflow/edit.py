"""`python -m lediflow.edit interpolate|vary|inpaint|anonymise|anonymity|attribute`: edit photographs."""

from __future__ import annotations

import difflib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from lediflow.claims import NAMED
from lediflow.config.building.editor import load_editor, origin_of, record_of, weights_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import (
    AnonymiseCommand,
    AnonymityCommand,
    AttributeCommand,
    InpaintCommand,
    InterpolateCommand,
    VaryCommand,
)
from lediflow.config.submission import register_launchers
from lediflow.editing.anonymisation.anonymity import measured_anonymity, write_report
from lediflow.editing.anonymisation.detection import FaceDetector
from lediflow.editing.anonymisation.embedding import dlib_embedder
from lediflow.editing.anonymisation.finding import finder_for, read_request
from lediflow.editing.anonymisation.run import anonymise_folder
from lediflow.editing.attributes import Found, described, found_between, moved_along
from lediflow.editing.codec_space import data_of, picture_shape
from lediflow.editing.direction_files import FILE, direction_bytes, read_direction, with_estimation
from lediflow.editing.folder import EditFolder, as_image
from lediflow.editing.inpainting import inpaint, measures, prepared
from lediflow.editing.interpolation import WAYS, Ends, frames_along, noise_of_seeds
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.editing.pairs import paired_files, read_pairs
from lediflow.editing.photographs import centred, refuse_inside
from lediflow.editing.picture_sets import read_set
from lediflow.editing.strength import own_of
from lediflow.editing.variation import parts_of, varied
from lediflow.errors import BAD_REQUEST, UserError
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.pictures import picture_arrays

log = logging.getLogger(__name__)

# words of the command line that are no names of options in Python
WRITTEN = {"--no-metadata": "metadata=false"}
BEGINNINGS = {"with=": "with_images=", "without=": "without_images="}
SEEN = (
    "below 1, the surrogate is made from the latent of the face itself, which identifies the person; it may resemble "
    "them. Measure it before such pictures leave the house"
)
MOST_ROWS = 32  # of strip.png where several photographs are inpainted
LEAK = (
    "z_from=image: z was encoded from the whole image, so it has seen what the mask hides, and results may show it "
    "again; to remove an object use z_from=masked or z_from=sampler"
)
SEEN_BY_STRENGTH = (
    "strength below 1: the start is mixed with the noise of the whole image, which has seen what the mask hides, and "
    "results may show it again; to remove an object use strength=1"
)
USAGE = """\
Edit photographs with trained models.

  python -m lediflow.edit interpolate run=FLOW_RUN sampler=SAMPLER_RUN output=DIR images=[A,B]    frames between two
  python -m lediflow.edit vary        run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE      other versions
  python -m lediflow.edit inpaint     run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE mask=FILE
                                                                                                  new pixels in a mask
  python -m lediflow.edit anonymise   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR source=DIR masks=DIR key=FILE
                                                                                                  other faces
  python -m lediflow.edit anonymity   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR source=DIR key=FILE
                                                                                                  how well they hide
  python -m lediflow.edit attribute   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR with=DIR without=DIR image=FILE
                                                                                      more and less of an attribute
Each has --help."""


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(USAGE)
        sys.exit(0 if words else BAD_REQUEST)
    name, *arguments = words
    if name not in TASKS:
        near = [f"; did you mean {word}?" for word in difflib.get_close_matches(name, TASKS, n=1)]
        print(
            f"error: lediflow.edit {name}: the first word is one of {', '.join(TASKS)}{''.join(near)}",
            file=sys.stderr,
        )
        sys.exit(BAD_REQUEST)
    sys.argv[1:] = [as_option(word) for word in arguments]
    run_command(f"edit_{name}", TASKS[name], register_launchers)


def as_option(word: str) -> str:
    """A word of the command line with the name that the option has in Python."""
    for beginning, name in BEGINNINGS.items():
        if word.startswith(beginning):
            return name + word.removeprefix(beginning)
    return WRITTEN.get(word, word)


def run_interpolate(config: DictConfig) -> None:
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
    pictures = [centred(path, "images", *picture_shape(pipeline)) for path in command.images]
    z = encoded(pipeline, data_of(pipeline, torch.cat([picture.signal for picture in pictures])))
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
    for numbers in batches(command):
        ids = torch.tensor(numbers, dtype=torch.int64, device=pipeline.device)
        made = varied(pipeline, own, ids, command, keep=command.keep, strength=command.strength)
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
    rows, records, nfe = [], [], 0
    for place, pair in enumerate(pairs):
        task = prepared(
            pipeline, pair.picture.pixels, pair.mask.amount, command, command.z_from,
            strength=command.strength, is_pasted=command.paste,
        )  # fmt: skip
        made = [inpaint(pipeline, task, numbers, command) for numbers in batches(command)]
        pixels = torch.cat([one.pixels for one in made])
        arrays = channels_last(pixels)
        names = folder.add_numbered(arrays, before=place * command.count, more=pair.record())
        rows.append(np.concatenate([channels_last(pair.shown), arrays]))
        line_error = max(one.line_error for one in made)
        records.append({**pair.record(), "files": names, "line_error": line_error, **measures(task, pixels)})
        warnings += task.own.warnings(files[place].image, command.round_trip_warning)
        nfe = max(nfe, *(one.nfe for one in made))
    is_single = command.image is not None
    about: dict[str, Any] = records[0] if is_single else {"pictures": records}
    strip = np.concatenate([np.concatenate(row, axis=1) for row in rows[:MOST_ROWS]])
    folder.add_picture(
        "strip.png", as_image(strip), pairs[0].record() if is_single else {"pictures": records[:MOST_ROWS]}
    )
    result = {"nfe": nfe, "line_error": max(one["line_error"] for one in records), "warnings": warnings}
    folder.write(record_of("inpaint", command, {**about, **result}))
    print(
        f"inpainted: {command.count * len(pairs)} images, and strip.png (image, hidden part, results) in {folder.root}"
    )


def run_anonymise(config: DictConfig) -> None:
    """Other faces on the photographs of a folder; nothing that is written says whose they were."""
    command: AnonymiseCommand = typed(config)
    request = read_request(command)
    pipeline = load_editor(
        command,
        len(request.sources),
        inverts_sampler=command.strength < 1,
        inverts_flow=True,
        is_of_pixels=True,
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


def run_anonymity(config: DictConfig) -> None:
    """How well surrogates hide the persons of a folder: anonymity.json and a table."""
    command: AnonymityCommand = typed(config)
    request = read_request(command)
    detector, embedder = request.detector or FaceDetector(command.certainty), dlib_embedder()
    pipeline = load_editor(
        command, len(request.sources), inverts_sampler=True, inverts_flow=True, is_of_pixels=True
    )
    command = pipeline.resolved(command)
    finder = finder_for(pipeline, command, request)
    result = measured_anonymity(pipeline, command, finder, detector, embedder)
    record = record_of("anonymity", command, result)
    del record["places"]
    print(write_report(Path(command.output), record))


def run_attribute(config: DictConfig) -> None:
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
    folder.add_strip("strip.png", np.concatenate([picture_arrays(picture.signal), arrays]))
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


TASKS: dict[str, Callable[[DictConfig], None]] = {
    "interpolate": run_interpolate,
    "vary": run_vary,
    "inpaint": run_inpaint,
    "anonymise": run_anonymise,
    "anonymity": run_anonymity,
    "attribute": run_attribute,
}


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


if __name__ == "__main__":
    main()
