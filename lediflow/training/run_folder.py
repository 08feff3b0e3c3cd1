"""The run folder is the run: named by what it is, continued by the same command.

config.yaml       resolved configuration         checkpoints/   full states
events.jsonl      what happened, append-only     export/        EMA weights and their configuration
averages/         stored along the run, to make averages of other lengths from
samples/          pictures                       results/       numbers with their origin
heartbeats/       where each rank is             stacks/        of ranks that hung
lease.json        who is training here           stop           make this file, and the run saves and stops
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.errors import UserError


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
    def stop(self) -> Path:
        return self.root / "stop"

    @property
    def lease(self) -> Path:
        return self.root / "lease.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def is_exported(self) -> bool:
        return (self.export / "config.json").is_file()

    def create(self) -> None:
        """Make the folder, or say why it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):  # a name of its own: every rank tries at once
                pass
        except OSError as error:
            raise UserError(
                f"run={self.root} cannot be written ({error.strerror}); choose another run=, or mend its permissions"
            ) from error

    def require_export(self, role: str, how_to_train: str) -> Path:
        """The export folder of a finished run, or what to do to get one."""
        if self.is_exported:
            return self.export
        found = "it has unfinished checkpoints" if self.checkpoints.is_dir() else "there is no run there"
        if self.root.is_dir() and not self.checkpoints.is_dir():
            found = "the folder holds no trained model"
        raise UserError(f"{role} is to be read from {self.root}, but {found}; train it: {how_to_train}")

    def exported_facts(self) -> dict[str, Any]:
        """What stands beside the exported weights."""
        return json.loads((self.export / "config.json").read_text())

    def weights_hash(self) -> str:
        """SHA-256 of the exported weights: what dependent runs pin."""
        with (self.export / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
