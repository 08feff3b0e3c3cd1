"""Options of `python -m lediflow.edit anonymise` and `anonymity`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from lediflow.editing.config import EditOptions, check_integrated
from lediflow.ranges import bounded

FRAMING = 1.25


@dataclass(kw_only=True)
class FaceOptions(EditOptions):
    """Where faces are, whose they are, and how the models see them."""

    source: str = MISSING  # folder of photographs, with its subfolders
    # folder of masks, named as the photographs (the suffix may differ). White: replace; each connected region is a
    # face. null: faces are found by a detector (the extra lediflow[faces])
    masks: str | None = None
    # without masks: replace what the detector takes for a face with at least this certainty; lower: fewer are missed,
    # and more is replaced that is none
    certainty: float = bounded(0.3, above=0, below=1)
    # without masks: the axes of the ellipse that is replaced, as multiples of the sides of the face's box
    margin: float = bounded(1.15, at_least=1, at_most=3)
    # file of at least 16 random bytes: one key gives a person one surrogate, and nobody without it can recompute it
    key: str = MISSING
    # who is on a photograph. files: somebody else on every file | folders: the largest face on each photograph of a
    # folder is one person | the path of a table: CSV with the columns file, face, person
    persons: str = "files"
    # side of the square that the models see, as a multiple of the longer side of the face (of its mask, or box).
    # null: 1.25 with masks; without, as in pictures that the models make, measured
    framing: float | None = bounded(None, at_least=1, at_most=8)
    # solver of the latent sampler, in both directions: dopri5 returns to the same z, fixed steps only nearly
    latent_solver: str = "dopri5"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integrated(self.steps)
        if not self.persons:
            raise ValueError("persons is empty; use files, folders, or the path of a CSV file")


@dataclass(kw_only=True)
class AnonymiseConfig(FaceOptions):
    """New faces for the persons in a folder of photographs."""

    # file to write which number is which photograph, outside of output; null: nowhere
    mapping: str | None = None
    # 1: a face from the key alone | below: a mixture with the face's own latent, which has seen the person | 0: its own
    strength: float = bounded(1.0, at_least=0, at_most=1)
    # also write photographs without a face, with their metadata removed; else they are listed and passed over
    keep_faceless: bool = False


@dataclass(kw_only=True)
class AnonymityConfig(FaceOptions):
    """How well surrogates hide the persons of a folder: numbers, no pictures."""

    # strengths that are measured; see anonymise
    strengths: list[float] = bounded(
        default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0],
        at_least=0,
        at_most=1,
        is_filled=True,
        is_distinct=True,
    )
