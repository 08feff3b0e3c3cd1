"""What the options name, checked before models are loaded; and the faces of a photograph, by masks or detected."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lediflow.editing.anonymisation.config import FRAMING, FaceOptions
from lediflow.editing.anonymisation.detection import FaceDetector, measured_framing
from lediflow.editing.anonymisation.faces import Face, Pixels, face_of_box, faces_of_mask
from lediflow.editing.anonymisation.keys import Key, read_key
from lediflow.editing.anonymisation.people import People, people_of, without_photograph
from lediflow.editing.anonymisation.photographs import MASK, UNREADABLE, PassedOverError, passed_over
from lediflow.editing.anonymisation.sources import Source, mask_for, masks_in, photographs_in, refuse_overlap
from lediflow.editing.masks import mask_from_file
from lediflow.editing.photographs import read_content
from lediflow.sampling import LeDiFlowPipeline

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """The photographs and what belongs to them."""

    sources: list[Source]
    key: Key
    people: People
    masks: dict[str, list[Path]] | None
    detector: FaceDetector | None  # without masks


def read_request(command: FaceOptions) -> Request:
    """Check places, read the key and the table of persons, list the files. UserError for what cannot be used."""
    refuse_overlap(
        command.output,
        {"source": command.source} | ({"masks": command.masks} if command.masks else {}),
        {"key": command.key, "persons": command.persons, "mapping": getattr(command, "mapping", None)},
    )
    sources, people = photographs_in(command.source), people_of(command.persons)
    if unknown := without_photograph(people, (source.name for source in sources)):
        log.warning(
            "persons=%s names %d files that are no photographs in source=%s, first %s; correct them",
            command.persons, len(unknown), command.source, unknown[0],
        )  # fmt: skip
    return Request(
        sources,
        read_key(command.key),
        people,
        masks_in(command.masks) if command.masks else None,
        None if command.masks else FaceDetector(command.certainty),
    )


@dataclass(frozen=True)
class Finder:
    """Reads photographs and finds their faces, as models of a size and framing see them."""

    request: Request
    size: int
    margin: float
    framing: float

    def read(self, source: Source) -> tuple[bytes, Path | None]:
        """The content of a photograph's file, and the file of its mask; PassedOverError if one is missing."""
        with passed_over(UNREADABLE):
            content = read_content(str(source.path), "source")
        if self.request.masks is None:
            return content, None
        with passed_over(MASK):
            return content, mask_for(source, self.request.masks)

    def faces(self, mask: Path | None, pixels: Pixels) -> list[Face]:
        """The faces, from left to right; PassedOverError for a mask that cannot be used."""
        height, width = pixels.shape[:2]
        if mask is None:
            assert self.request.detector is not None
            found = (
                face_of_box(one.box, one.quarter_turns, (height, width), self.size, self.framing, self.margin)
                for one in self.request.detector(pixels)
            )
            return [face for face in found if face is not None]
        with passed_over(MASK):
            levels = mask_from_file(str(mask), (width, height)).levels
        if levels.all():
            raise PassedOverError(MASK, "the mask leaves no pixel as it is; paint black what is no face")
        return faces_of_mask(levels, self.size, self.framing)


def finder_for(pipeline: LeDiFlowPipeline, command: FaceOptions, request: Request) -> Finder:
    """A finder for these models; without masks, framing is measured on their pictures unless it is given."""
    framing = command.framing or FRAMING
    if command.framing is None and request.detector is not None:
        framing = measured_framing(pipeline, command, request.detector)
    return Finder(request, pipeline.image_size, command.margin, framing)
