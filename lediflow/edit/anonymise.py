"""`python -m lediflow.edit anonymise`: other faces on a folder of photographs."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from lediflow.claims import NAMED
from lediflow.config.building.editor import load_editor, origin_of, record_of
from lediflow.config.composition.checks import typed
from lediflow.config.composition.schema import AnonymiseCommand
from lediflow.editing.anonymisation.finding import read_request
from lediflow.editing.anonymisation.run import anonymise_folder
from lediflow.errors import UserError

log = logging.getLogger(__name__)

SEEN = (
    "below 1, the surrogate is made from the latent of the face itself, which identifies the person; it may resemble "
    "them. Measure it before such pictures leave the house"
)


def run(config: DictConfig) -> None:
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


def named_sentences(messages: list[str]) -> str:
    """The first few of many messages, for one sentence."""
    more = f"; and {len(messages) - NAMED} more, see above" if len(messages) > NAMED else ""
    return "; ".join(messages[:NAMED]) + more
