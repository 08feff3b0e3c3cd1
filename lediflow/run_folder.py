"""Names of the files in a run folder, and what they say about the run.

The folder is the run: the same command continues it.

config.yaml       resolved configuration         checkpoints/   full states
prior_width.json  the width that a flow's stage.prior_widening=auto chose
events.jsonl      event log, append-only         export/        averaged weights and facts about them
averages/         stored averages, from which averages of other lengths are computed
samples/          generated images               results/       measurements with their origin
pictures/         what the weights make while the run trains: <images seen, 12 digits>/<name>.png
heartbeats/       progress of each rank          stacks/        stack traces of ranks that hung
lease.json        the session that trains here   stop           create this file: the run saves and stops
wandb/            runs for W&B, and what was sent to it
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lediflow.claims import refuse_foreign, visible_names
from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.records import EXPORT_AGAIN, Record, RecordError, one_line, read_record

REWRITTEN = "the next start of the training writes it again"

# Types of the facts in export/config.json; older releases wrote fewer of them.
FACTS: dict[str, Any] = {
    "stage": str,
    "prior": str,
    "image_size": int,
    "images_seen": int,
    "trained_images": int | None,
    "best_images_seen": int | None,
    "held_out_loss": float | None,
    "export": str,
    "ended": str | None,
    "codec": {"name": str},
    "data": {"path": str, "fingerprint": str, "samples": int, "held_out_fraction": float},
    "parent": {"path": str, "sha256": str},
    "teacher": {"path": str, "sha256": str},
    "sampler": {"path": str, "sha256": str},
    "prior_widening": float,
    "prior_scale": float,
    "prior_width": dict[str, Any],
    "identity": dict[str, Any],
    "weights_sha256": str,
}

IMAGES, PATIENCE = "images", "patience"  # why a run ended, the fact `ended`

# what the folder may contain before a run begins
OWN = ("stop", "heartbeats", "stacks", "averages", "samples", "results")


@dataclass(frozen=True)
class RunFolder:
    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def averages(self) -> Path:
        return self.root / "averages"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def prior_width(self) -> Path:
        return self.root / "prior_width.json"

    @property
    def stop(self) -> Path:
        return self.root / "stop"

    @property
    def lease(self) -> Path:
        return self.root / "lease.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def is_run(self) -> bool:
        """Whether training has started in this folder."""
        is_begun = self.lease.is_file() or self.events.is_file() or self.is_exported
        return is_begun or any(self.checkpoints.glob("[0-9]" * 12))

    @property
    def is_exported(self) -> bool:
        return (self.export / "config.json").exists()

    def create(self) -> None:
        """Create the folder. Raises UserError if it cannot be written, or contains files that are not of a run."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # listed before the question whether a run has begun: another rank may begin it between the two
            others = [name for name in visible_names(self.root) if name not in OWN]
            if not self.is_run:
                refuse_foreign(self.root, "run", others)
            # all ranks try to write at the same time, so each uses a unique hidden name
            with tempfile.TemporaryFile(dir=self.root, prefix="."):
                pass
        except OSError as error:
            raise UserError(
                f"run={self.root} cannot be written ({error.strerror}); choose another run=, or change its permissions"
            ) from error

    def require_export(self, role: str, how_to_train: str) -> Path:
        """The export folder of a finished run; UserError, with the command that makes one, if there is none.

        `role` names the model in the message; `how_to_train` is the command.
        """
        if self.is_exported:
            return self.export
        found = "it has unfinished checkpoints" if self.checkpoints.is_dir() else "there is no run there"
        if self.root.is_dir() and not self.checkpoints.is_dir():
            found = "the folder holds no trained model"
        if RunFolder(self.root.parent).is_exported and self.root.name == self.export.name:
            raise UserError(
                f"{role} is to be read from a run folder, but {self.root} is the export in it; give {self.root.parent}"
            )
        raise UserError(f"{role} is to be read from {self.root}, but {found}; train it: {how_to_train}")

    def exported_facts(self) -> Record:
        """The content of export/config.json; RecordError if it cannot be read or is empty."""
        path = self.export / "config.json"
        if not (facts := read_record(path, EXPORT_AGAIN, FACTS)):
            raise RecordError(f"{path} holds nothing ({{}}): it is damaged; {EXPORT_AGAIN}")
        return facts

    def recorded_options(self) -> dict[str, Any]:
        """The resolved configuration of the last session; RecordError if there is none, or it cannot be read."""
        if not self.config.is_file():
            raise RecordError(f"{self.root} has no {self.config.name}; give the run folder of lediflow.train")
        try:
            found = OmegaConf.to_container(OmegaConf.create(self.config.read_text()))
        except Exception as error:  # YAML, OmegaConf and the disk each raise their own
            raise RecordError(f"{self.config} cannot be read ({one_line(error)}); {REWRITTEN}") from error
        if not isinstance(found, dict) or not found:
            raise RecordError(f"{self.config} holds no options; {REWRITTEN}")
        return {str(key): value for key, value in found.items()}

    def weights_hash(self) -> str:
        """SHA-256 of the exported weights, which dependent runs pin; RecordError if they cannot be read."""
        path = self.export / "model.safetensors"
        try:
            return sha256_of(path)
        except OSError as error:
            raise RecordError(f"{path} cannot be read ({error.strerror}); {EXPORT_AGAIN}") from error


def trained_images(facts: Mapping[str, Any]) -> int:
    """Images that the run had seen; in exports of older releases, those of the weights."""
    found = facts.get("trained_images")
    return facts["images_seen"] if found is None else found


def has_ended(facts: Mapping[str, Any], images: int, patience_images: int | None) -> bool:
    """Whether the exported run is finished, by its images or by patience; older releases recorded images only."""
    trained = trained_images(facts)
    if trained >= images:
        return True
    best = facts.get("best_images_seen")
    if facts.get("ended") != PATIENCE or best is None or not patience_images:
        return False
    return trained - int(best) >= patience_images
