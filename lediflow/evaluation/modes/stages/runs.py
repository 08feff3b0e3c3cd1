"""The runs that `mode=stages` measures, all trained on the same split of the same shards."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lediflow.data.shards.reader import ShardReader
from lediflow.errors import UserError
from lediflow.evaluation.session import Session
from lediflow.run_folder import RunFolder
from lediflow.stages import place_of
from lediflow.text import shown_hash


class MeasuredRuns(NamedTuple):
    """The runs that images come from."""

    auxiliary: RunFolder
    flow: RunFolder
    sampler: RunFolder
    baseline: RunFolder | None

    def named(self) -> dict[str, RunFolder]:
        return {name: folder for name, folder in self._asdict().items() if folder is not None}


def find_runs(session: Session) -> MeasuredRuns:
    """The runs of the command; the auxiliary run is the one whose hash the flow's export holds."""
    command = session.command
    assert command.run is not None and command.sampler is not None
    flow = RunFolder(Path(command.run))
    parent = flow.exported_facts()["parent"]
    auxiliary = session.models.find_parent({flow.root: parent}, parent["sha256"])
    baseline = find_baseline(command.baseline) if command.baseline else None
    return MeasuredRuns(auxiliary, flow, RunFolder(Path(command.sampler)), baseline)


def find_baseline(path: str) -> RunFolder:
    """The run of the Gaussian baseline; UserError, before anything is measured, for any other run."""
    folder, command = RunFolder(Path(path)), "python -m lediflow.train stage=flow prior=gaussian ..."
    folder.require_export(f"baseline={path}", command)
    facts = folder.exported_facts()
    is_flow = place_of(facts["stage"]) == "flow"
    if not is_flow or facts["prior"] != "gaussian":
        found = f"stage={facts['stage']}" + (" from a learned prior" if is_flow else "")
        raise UserError(f"baseline={path} is a run of {found}; give one of stage=flow prior=gaussian")
    return folder


def check_trained_on(runs: MeasuredRuns, reader: ShardReader, path: str) -> None:
    """Refuse runs whose models were not all trained on the same split of these shards."""
    fraction = runs.flow.exported_facts()["data"]["held_out_fraction"]
    for name, folder in runs.named().items():
        data = folder.exported_facts()["data"]
        if data["fingerprint"] != reader.index.fingerprint:
            raise UserError(
                f"{name} {folder.root} was trained on other data than data.path={path} (index "
                f"{shown_hash(data['fingerprint'])} and {shown_hash(reader.index.fingerprint)}), so none of these "
                "images is known to be of its training or held out; give the shards of its training, or train all "
                "stages on these"
            )
        if data["held_out_fraction"] != fraction:
            raise UserError(
                f"{name} {folder.root} was trained with data.held_out_fraction={data['held_out_fraction']:g}, the flow "
                f"with {fraction:g}: an image held out by one is training data of the other; train all "
                "stages with the same fraction"
            )
    if not fraction:
        raise UserError(
            f"run={runs.flow.root} was trained on all images of {path}: without held-out images it cannot be "
            "measured whether the prior memorises; train all stages with data.held_out_fraction=0.05"
        )
