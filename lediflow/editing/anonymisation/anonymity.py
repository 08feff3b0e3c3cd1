"""How well surrogates hide the persons on photographs: `python -m lediflow.edit anonymity`. Numbers, no pictures.

Of each photograph the largest face is used, as the person that `persons` says. The photographs of a person are divided:
every second one, beginning with the first, is in the gallery, unchanged, as somebody who knows the person has it; the
others are probes, whose faces are hidden and then looked up. A person with one photograph is both: the gallery has its
mirror image. That is the weakest check: it shows that a picture is not found again, not that a person is not.

Each row hides the probes in one way: a strength of the surrogate, a random face of the models pasted into the mask,
blur, or pixels. A face that is not detected any more is looked up at the place where it was.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from lediflow.claims import claim_folder
from lediflow.data.sources.names import printable
from lediflow.disk import whole_or_absent, write_json
from lediflow.editing.anonymisation.config import AnonymityConfig
from lediflow.editing.anonymisation.detection import FaceDetector
from lediflow.editing.anonymisation.embedding import Embedder, Embedding
from lediflow.editing.anonymisation.faces import Box, Face, Pixels, Square, padded, pasted, resized
from lediflow.editing.anonymisation.finding import Finder
from lediflow.editing.anonymisation.measures import Pose, Seen, chance, row_of
from lediflow.editing.anonymisation.photographs import (
    NO_FACE,
    NO_PERSON,
    PassedOverError,
    passed_over,
    photograph_pixels,
)
from lediflow.editing.anonymisation.sources import Source
from lediflow.editing.anonymisation.surrogates import replace_faces
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pictures import picture_arrays

log = logging.getLogger(__name__)

NUMBERS, PAGE = "anonymity.json", "anonymity.md"
# the part of a photograph that is measured, in squares of the face, and its side in pixels
AROUND, CUTOUT = 1.4, 256
BLUR, BLOCKS = 0.1, 8  # standard deviation in sides of the square; pixels along the side
FEWEST_PROBES = 2
ORIGINAL, RANDOM, BLURRED, PIXELATED = "original", "random face", "blur", "pixels"
FEWEST_PERSONS = 10  # for a verdict
TELLS_APART = 0.8  # rank 1 of unchanged probes, below which the embedder says nothing about these photographs
TIMES_CHANCE, DETECTED = 2.0, 0.95  # the goal


class Subject(NamedTuple):
    """A photograph, the face in it that is measured, and whose it is."""

    pixels: Pixels
    face: Face
    person: str


class Set(NamedTuple):
    """Probes and gallery; `views` of the probes are compared with their mirror images."""

    probes: list[Subject]
    gallery: list[Subject]
    views: int


Hide = Callable[[Subject], Pixels]


def measured_anonymity(
    pipeline: LeDiFlowPipeline,
    command: AnonymityConfig,
    finder: Finder,
    detector: FaceDetector,
    embedder: Embedder,
) -> dict[str, Any]:
    """The numbers of each row, and the verdict; UserError if there are too few photographs with a face."""
    subjects, passed = subjects_in(finder, pipeline.velocity.spec.image_channels)
    divided = divide(subjects)
    if len(divided.probes) < FEWEST_PROBES or len({one.person for one in divided.gallery}) < FEWEST_PROBES:
        raise UserError(
            f"source={command.source} has {len(subjects)} photographs with a face, of "
            f"{len({one.person for one in subjects})} persons; re-identification needs {FEWEST_PROBES} persons at least"
        )

    def look(pixels: Pixels, face: Face) -> Seen:
        return seen_face(pixels, face, detector, embedder)

    gallery = [look(one.pixels, one.face).embedding for one in divided.gallery]
    gallery_persons = [one.person for one in divided.gallery]
    persons = [one.person for one in divided.probes]
    before = [look(one.pixels, one.face) for one in divided.probes]
    rows = [row_of(ORIGINAL, before, before, persons, gallery, gallery_persons)]
    for name, hide in ways(pipeline, command, finder):
        after = [look(hide(one), one.face) for one in divided.probes]
        rows.append(row_of(name, before, after, persons, gallery, gallery_persons))
        log.info("%s: rank 1 %.3f, detected %.3f", name, rows[-1]["rank_1"], rows[-1]["detected"])
    expected = chance(persons, gallery_persons)
    return {
        "photographs": len(subjects),
        "passed_over": passed,
        "persons": len({*gallery_persons, *persons}),
        "probes": len(persons),
        "gallery": len(gallery),
        "mirrored": divided.views,
        "framing": finder.framing,
        "chance": expected,
        "rows": rows,
        "verdict": verdict(rows, expected, len({*gallery_persons, *persons}), divided.views),
    }


def subjects_in(finder: Finder, channels: int) -> tuple[list[Subject], int]:
    """The largest face of each photograph, and the number of photographs without any."""
    found, passed = [], 0
    for source in finder.request.sources:
        try:
            found.append(subject(finder, source, channels))
        except PassedOverError as error:
            log.warning("passed over %s: %s", printable(source.name), error)
            passed += 1
    return found, passed


def subject(finder: Finder, source: Source, channels: int) -> Subject:
    content, mask = finder.read(source)
    pixels = photograph_pixels(content, channels)
    faces = finder.faces(mask, pixels)
    if not faces:
        raise PassedOverError(NO_FACE, "no face is found")
    largest = max(range(len(faces)), key=lambda number: faces[number].pixels)
    with passed_over(NO_PERSON):
        persons = finder.request.people.persons(source.name, [face.pixels for face in faces])
    return Subject(pixels, faces[largest], persons[largest])


def divide(subjects: list[Subject]) -> Set:
    """Every second photograph of a person into the gallery; a person with one is both, mirrored in the gallery."""
    of_person: dict[str, list[Subject]] = defaultdict(list)
    for one in subjects:
        of_person[one.person].append(one)
    probes: list[Subject] = []
    gallery: list[Subject] = []
    views = 0
    for own in of_person.values():
        gallery += own[::2] if len(own) > 1 else [mirrored(own[0])]
        probes += own[1::2] if len(own) > 1 else own
        views += len(own) == 1
    return Set(probes, gallery, views)


def mirrored(one: Subject) -> Subject:
    """Another view of a photograph: its mirror image."""
    square = one.face.square
    there = square._replace(left=one.pixels.shape[1] - square.left - square.side, turns=-square.turns % 4)
    face = one.face._replace(levels=np.ascontiguousarray(one.face.levels[:, ::-1]), square=there)
    return Subject(np.ascontiguousarray(one.pixels[:, ::-1]), face, one.person)


def ways(pipeline: LeDiFlowPipeline, command: AnonymityConfig, finder: Finder) -> Iterator[tuple[str, Hide]]:
    """The ways to hide a face, by name."""
    for strength in command.strengths:

        def replace(one: Subject, strength: float = strength) -> Pixels:
            key = finder.request.key
            return replace_faces(pipeline, one.pixels, [one.face], [one.person], key, strength, command)[0]

        yield f"strength {strength:g}", replace
    yield RANDOM, random_faces(pipeline, command)
    yield BLURRED, lambda one: pasted_over(one, blurred)
    yield PIXELATED, lambda one: pasted_over(one, pixelated)


def random_faces(pipeline: LeDiFlowPipeline, command: AnonymityConfig) -> Hide:
    """A picture of the models for each face, the next one for the next, pasted without eq. 7."""
    settings = SamplingConfig(seed=command.seed, solver=command.solver, steps=command.steps)
    numbers = iter(range(10**9))

    def replace(one: Subject) -> Pixels:
        made = picture_arrays(pipeline([next(numbers)], settings).images)[0]
        return pasted(one.pixels, one.face, torch.from_numpy(made).permute(2, 0, 1))

    return replace


def pasted_over(one: Subject, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """The photograph with its square changed inside the mask."""
    square = one.face.square._replace(turns=0)
    part = padded(one.pixels, square, "edge")
    changed = np.stack([np.asarray(change(Image.fromarray(channel))) for channel in np.moveaxis(part, -1, 0)])
    return pasted(one.pixels, one.face._replace(square=square), torch.from_numpy(changed))


def blurred(channel: Image.Image) -> Image.Image:
    return channel.filter(ImageFilter.GaussianBlur(BLUR * channel.width))


def pixelated(channel: Image.Image) -> Image.Image:
    small = channel.resize((BLOCKS, BLOCKS), Image.Resampling.BOX)
    return small.resize(channel.size, Image.Resampling.NEAREST)


def seen_face(pixels: Pixels, face: Face, detector: FaceDetector, embedder: Embedder) -> Seen:
    """The face in a photograph near the place of `face`: its detection, and its embedding, at that place if none is."""
    square = face.square
    side = round(AROUND * square.side)
    shift = (side - square.side) // 2
    around = Square(square.left - shift, square.top - shift, side, square.turns)
    part = padded(pixels, around, "edge")
    cutout = np.stack(
        [resized(np.ascontiguousarray(channel), CUTOUT) for channel in np.moveaxis(part, -1, 0)], axis=-1
    )
    found = detector.nearest(cutout, (CUTOUT / 2, CUTOUT / 2))
    low = CUTOUT * (1 - 1 / AROUND) / 2
    box: Box = found.box if found is not None else (low, low, CUTOUT - low, CUTOUT - low)
    embedding: Embedding = embedder(cutout, box)
    return Seen(found, embedding)


def verdict(rows: list[dict[str, Any]], expected: float, persons: int, mirrored: int) -> dict[str, Any]:
    """Whether the goal is met at the last strength: rank 1 at most twice chance, with 95 % of faces detected."""
    original = rows[0]["rank_1"]
    reached = [row for row in rows if row["name"].startswith("strength")][-1]
    is_met = reached["rank_1"] <= TIMES_CHANCE * expected and reached["detected"] >= DETECTED
    if original < TELLS_APART:
        text = (
            f"the embedder finds {original:.0%} of the unchanged persons, below {TELLS_APART:.0%}: it does not tell "
            "these persons apart, and its other numbers mean nothing"
        )
    else:
        text = (
            f"{reached['name']}: {reached['rank_1']:.1%} of the persons are found, by chance it would be "
            f"{expected:.1%}, unchanged {original:.1%}; {reached['detected']:.1%} of the faces are detected. The goal, "
            f"at most twice chance and at least {DETECTED:.0%}, is {'met' if is_met else 'not met'}"
        )
    if persons < FEWEST_PERSONS:
        text += f"; {persons} persons are too few to judge it, take {FEWEST_PERSONS} or more"
    if mirrored:
        text += f"; {mirrored} photographs were compared with their own mirror images"
    is_judged = original >= TELLS_APART and persons >= FEWEST_PERSONS
    return {"is_met": bool(is_met and is_judged), "text": text}


def table(result: dict[str, Any]) -> str:
    """The numbers as a table in Markdown."""
    lines = [
        "| hidden by | rank 1 | 95 % interval | distance | detected | landmark error | roll, yaw, mouth kept |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        low, high = row["rank_1_interval"]
        values = [row["kept"][name] for name in Pose._fields]  # records are sorted by name
        kept = ", ".join("-" if value is None else f"{value:.2f}" for value in values)
        error = "-" if row["landmark_error"] is None else f"{row['landmark_error']:.3f}"
        cells = (
            row["name"], f"{row['rank_1']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['distance']:.2f}",
            f"{row['detected']:.1%}", error, kept,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_report(folder: Path, record: dict[str, Any]) -> str:
    """Write anonymity.json and anonymity.md; returns the latter's text. UserError if the folder is not ours."""
    claim_folder(folder, "output", "lediflow.edit", lambda place: (place / NUMBERS).is_file())
    text = page(record)
    write_json(folder / NUMBERS, record)
    with whole_or_absent(folder / PAGE) as stream:
        stream.write(text.encode())
    return text


def page(result: dict[str, Any]) -> str:
    """anonymity.md."""
    mirrors = (
        f", {result['mirrored']} of them compared with their own mirror images" if result["mirrored"] else ""
    )
    return (
        f"{result['probes']} probes{mirrors}, a gallery of {result['gallery']} photographs, {result['persons']} "
        f"persons; chance is {result['chance']:.1%}.\n\n{table(result)}\n\n{result['verdict']['text']}.\n"
    )
