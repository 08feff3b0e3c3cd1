"""Anonymise a folder of photographs, one after the other, so that each result depends on its photograph alone.

Results are the same for every order, batch and restart: faces are made one at a time, with noise that only the key, the
person and the seed determine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.data.sources.names import printable
from lediflow.disk import write_json
from lediflow.editing.anonymisation.config import FRAMING, AnonymiseConfig
from lediflow.editing.anonymisation.detection import FaceDetector, measured_framing
from lediflow.editing.anonymisation.faces import Face, Pixels, face_of_box, faces_of_mask
from lediflow.editing.anonymisation.folder import AnonymisedFolder, Row
from lediflow.editing.anonymisation.keys import Key, read_key
from lediflow.editing.anonymisation.people import People, people_of
from lediflow.editing.anonymisation.photographs import (
    MASK,
    NO_FACE,
    NO_PERSON,
    UNREADABLE,
    WRITTEN,
    PassedOverError,
    passed_over,
    photograph_pixels,
)
from lediflow.editing.anonymisation.sources import Source, mask_for, masks_in, photographs_in, refuse_overlap
from lediflow.editing.anonymisation.surrogates import replace_faces
from lediflow.editing.folder import Origin, as_image, png_bytes
from lediflow.editing.masks import mask_from_file
from lediflow.editing.photographs import read_content
from lediflow.sampling import LeDiFlowPipeline

log = logging.getLogger(__name__)

LOGGED_EVERY = 100  # photographs


class Request(NamedTuple):
    """What the options name, read and checked before models are loaded."""

    sources: list[Source]
    key: Key
    people: People
    masks: dict[str, list[Path]] | None
    detector: FaceDetector | None  # without masks


class Outcome(NamedTuple):
    """Pictures made now, pictures of an earlier start that were kept, and a message for each photograph without one."""

    made: int
    kept: int
    passed_over: list[str]


def read_request(command: AnonymiseConfig) -> Request:
    """Check places, read the key and the table of persons, list the files. UserError for what cannot be used."""
    refuse_overlap(
        command.output,
        {"source": command.source} | ({"masks": command.masks} if command.masks else {}),
        {"key": command.key, "persons": command.persons, "mapping": command.mapping},
    )
    return Request(
        photographs_in(command.source),
        read_key(command.key),
        people_of(command.persons),
        masks_in(command.masks) if command.masks else None,
        None if command.masks else FaceDetector(command.certainty),
    )


@dataclass(frozen=True)
class Anonymiser:
    """Replaces the faces of photographs. `settings`: everything else that results depend on, as text."""

    pipeline: LeDiFlowPipeline
    command: AnonymiseConfig
    request: Request
    settings: str
    framing: float
    origin: Origin | None  # written into each picture; None: nothing is

    def row(self, source: Source, folder: AnonymisedFolder) -> Row:
        """Write the result of a photograph, unless it is there already; PassedOverError if there is none to write."""
        with passed_over(UNREADABLE):
            content = read_content(str(source.path), "source")
        mask = None
        if self.request.masks is not None:
            with passed_over(MASK):
                mask = mask_for(source, self.request.masks)
        parts = (content, mask.read_bytes() if mask else b"", self.request.people.known(source.name))
        digest = self.request.key.digest(self.settings, str(source.number), *parts)
        if (earlier := folder.earlier_row(digest)) is not None:
            return earlier
        pixels = photograph_pixels(content, self.pipeline.velocity.spec.image_channels)
        faces = self.faces(mask, pixels)
        result, records = self.replaced(source.name, pixels, faces) if faces else (pixels, [])
        origin = None if self.origin is None else {**self.origin, "number": source.number}
        picture = png_bytes(as_image(result), origin)
        return {
            **empty_row(source, WRITTEN),
            "digest": digest,
            "file": folder.write_picture(source.number, picture),
            "sha256": hashlib.sha256(picture).hexdigest(),
            "faces": records,
        }

    def faces(self, mask: Path | None, pixels: Pixels) -> list[Face]:
        """The faces of a photograph; none only if such photographs are to be written, else PassedOverError."""
        faces = self.found(pixels) if mask is None else self.masked(mask, pixels)
        if not faces and not self.command.keep_faceless:
            how = "none is found" if mask is None else "the mask is black"
            raise PassedOverError(
                NO_FACE,
                f"no face: {how}; give a mask that shows it, or keep_faceless=true to write it as it is",
            )
        return faces

    def masked(self, mask: Path, pixels: Pixels) -> list[Face]:
        height, width = pixels.shape[:2]
        with passed_over(MASK):
            levels = mask_from_file(str(mask), (width, height)).levels
        if levels.all():
            raise PassedOverError(MASK, "the mask leaves no pixel as it is; paint black what is no face")
        return faces_of_mask(levels, self.pipeline.image_size, self.framing)

    def found(self, pixels: Pixels) -> list[Face]:
        assert self.request.detector is not None
        size, margin = self.pipeline.image_size, self.command.margin
        shape = (pixels.shape[0], pixels.shape[1])
        faces = (
            face_of_box(one.box, one.quarter_turns, shape, size, self.framing, margin)
            for one in self.request.detector(pixels)
        )
        return [face for face in faces if face is not None]

    def replaced(self, name: str, pixels: Pixels, faces: list[Face]) -> tuple[Pixels, list[dict[str, Any]]]:
        """The photograph with a surrogate for each face, and records of the faces."""
        size, command = self.pipeline.image_size, self.command
        with passed_over(NO_PERSON):
            persons = [self.request.people.person(name, number) for number in range(len(faces))]
        result, surrogates = replace_faces(
            self.pipeline, pixels, faces, persons, self.request.key, command.strength, command
        )
        records = []
        for number, (face, made) in enumerate(zip(faces, surrogates, strict=True)):
            record = {**face.record(size), "line_error": made.line_error}
            if made.own is not None:
                made.own.warnings([f"{name}, face {number}"], command.round_trip_warning)
                record["round_trip"] = made.own.record(0)
            records.append(record)
        return result, records


def anonymise_folder(
    pipeline: LeDiFlowPipeline,
    command: AnonymiseConfig,
    request: Request,
    record: Row,
    origin: Origin | None,
) -> Outcome:
    """Write a picture for each photograph with a face, and edit.json: `record` and a row for each photograph.

    `origin` goes into each picture; neither may name a place or a person. Photographs that cannot be used are passed
    over.
    """
    folder = AnonymisedFolder(Path(command.output), record, len(request.sources))
    if command.mapping is not None:
        write_json(Path(command.mapping), {source.number: source.name for source in request.sources})
    framing = command.framing or FRAMING
    if command.framing is None and request.detector is not None:
        framing = measured_framing(pipeline, command, request.detector)
    settings = json.dumps([record, framing, origin is not None], sort_keys=True)
    anonymiser = Anonymiser(pipeline, command, request, settings, framing, origin)
    messages = []
    for source in request.sources:
        try:
            row = anonymiser.row(source, folder)
        except PassedOverError as error:
            row = empty_row(source, error.reason)
            messages.append(f"{printable(source.name)}: {error}")
            log.warning("passed over %s", messages[-1])
        folder.add(row)
        if len(folder.rows) % LOGGED_EVERY == 0:
            log.info("%d of %d photographs", len(folder.rows), len(request.sources))
    results = Counter(row["result"] for row in folder.rows.values())
    folder.finish(
        {
            "framing": framing,
            "results": results,
            "faces": sum(len(row["faces"]) for row in folder.rows.values()),
        }
    )
    return Outcome(results[WRITTEN] - folder.kept, folder.kept, messages)


def empty_row(source: Source, result: str) -> Row:
    """The row of a photograph in edit.json, without a picture."""
    return {
        "number": source.number,
        "result": result,
        "digest": None,
        "file": None,
        "sha256": None,
        "faces": [],
    }
