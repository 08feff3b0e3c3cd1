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
from lediflow.editing.anonymisation.config import AnonymiseConfig
from lediflow.editing.anonymisation.faces import Face, Pixels
from lediflow.editing.anonymisation.finding import Finder, Request, finder_for
from lediflow.editing.anonymisation.folder import AnonymisedFolder, Row
from lediflow.editing.anonymisation.photographs import (
    MASK,
    NO_FACE,
    NO_PERSON,
    WRITTEN,
    PassedOverError,
    passed_over,
    photograph_pixels,
)
from lediflow.editing.anonymisation.sources import Source
from lediflow.editing.anonymisation.surrogates import replace_faces
from lediflow.editing.folder import Origin, as_image, png_bytes
from lediflow.editing.photographs import read_content
from lediflow.sampling import LeDiFlowPipeline

log = logging.getLogger(__name__)

LOGGED_EVERY = 100  # photographs


class Outcome(NamedTuple):
    """Pictures made now, pictures of an earlier start that were kept, and a message for each photograph without one."""

    made: int
    kept: int
    passed_over: list[str]


@dataclass(frozen=True)
class Anonymiser:
    """Replaces the faces of photographs. `settings`: everything else that results depend on, as text."""

    pipeline: LeDiFlowPipeline
    command: AnonymiseConfig
    finder: Finder
    settings: str
    origin: Origin | None  # written into each picture; None: nothing is

    @property
    def request(self) -> Request:
        return self.finder.request

    def row(self, source: Source, folder: AnonymisedFolder) -> Row:
        """Write the result of a photograph, unless it is there already; PassedOverError if there is none to write."""
        content, mask = self.finder.read(source)
        with passed_over(MASK):
            masked = read_content(str(mask), "masks") if mask else b""
        parts = (content, masked, self.request.people.known(source.name))
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
        faces = self.finder.faces(mask, pixels)
        if not faces and not self.command.keep_faceless:
            how = "none is found" if mask is None else "the mask is black"
            raise PassedOverError(
                NO_FACE,
                f"no face: {how}; give a mask that shows it, or keep_faceless=true to write it as it is",
            )
        return faces

    def replaced(self, name: str, pixels: Pixels, faces: list[Face]) -> tuple[Pixels, list[dict[str, Any]]]:
        """The photograph with a surrogate for each face, and records of the faces."""
        size, command = self.pipeline.image_size, self.command
        with passed_over(NO_PERSON):
            persons = self.request.people.persons(name, [face.pixels for face in faces])
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
    finder = finder_for(pipeline, command, request)
    folder = AnonymisedFolder(Path(command.output), record, len(request.sources))
    if command.mapping is not None:
        write_json(Path(command.mapping), {source.number: source.name for source in request.sources})
    settings = json.dumps([record, finder.framing, origin is not None], sort_keys=True)
    anonymiser = Anonymiser(pipeline, command, finder, settings, origin)
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
            "framing": finder.framing,
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
