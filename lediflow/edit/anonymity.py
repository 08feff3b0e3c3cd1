"""`python -m lediflow.edit anonymity`: how well surrogates hide the persons of a folder."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from lediflow.config.building.editor import load_editor, record_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import AnonymityCommand
from lediflow.editing.anonymisation.anonymity import measured_anonymity, write_report
from lediflow.editing.anonymisation.detection import FaceDetector
from lediflow.editing.anonymisation.embedding import dlib_embedder
from lediflow.editing.anonymisation.finding import finder_for, read_request


def run(config: DictConfig) -> None:
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
