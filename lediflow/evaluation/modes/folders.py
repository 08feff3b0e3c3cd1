"""Finished pictures against a folder of real ones (images=, reference=): no model is needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lediflow.errors import UserError
from lediflow.evaluation.images import FolderImages
from lediflow.evaluation.metrics import check_counts, measure
from lediflow.evaluation.references import Reference, reference_features
from lediflow.evaluation.session import Session
from lediflow.evaluation.views import describe
from lediflow.sampling.folder import check_recorded


def evaluate_folders(session: Session) -> dict[str, Any]:
    """Measure one row; the features of both folders are cached under a hash of their pictures."""
    command = session.command
    assert command.images is not None and command.reference is not None
    output = Path(command.output or f"{command.images}/results")
    with session.group.together("looking at the pictures"):
        check_recorded(Path(command.reference))
        check_recorded(Path(command.images))
        real = FolderImages(Path(command.reference), "reference")
        generated = FolderImages(Path(command.images), "images")
    for note in (*real.notes(), *generated.notes()):
        session.note(note)
    check_counts(len(real), len(generated))
    check_sizes(real, generated)
    session.claim(output)
    photographs = reference_features(session, real, "real pictures", command.statistics)
    reference = Reference("photographs", photographs, np.arange(len(real)), None)
    features = reference_features(session, generated, "generated pictures")
    measured = measure(
        reference, features, session.extractor.name, session.group, session.device, command.metrics
    )
    results = {
        "asked": {"options": dataclasses.asdict(command)},
        "pictures": {"images": generated.account(), "reference": real.account()},
        "rows": [measured.row],
    }
    session.write(output, results, seed=None)
    session.say(describe(measured.row))
    return results


def check_sizes(real: FolderImages, generated: FolderImages) -> None:
    """UserError for folders of different sizes: resizing one of them would change its features."""
    if real.size != generated.size:
        raise UserError(
            f"{generated.folder} holds pictures of {generated.size} x {generated.size}, {real.folder} of {real.size} x "
            f"{real.size}: bring both to one size with the same method before they are compared"
        )
