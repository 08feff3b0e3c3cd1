"""Run folders as a report reads them: the exported facts, the event log, results and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lediflow.evaluation.modes.stages.record import STAGES_FILE, read_stages
from lediflow.evaluation.results import AGAIN, read_results
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.stages import Place, place_of
from lediflow.tracking.event_log import Curve, curve

RESULTS, PICTURES = Path("results/results.json"), Path("results/pictures.safetensors")
STAGE_RESULTS = Path("results/stages") / STAGES_FILE
LEDIFLOW, BASELINE = "LeDiFlow", "Flow matching"
HELD_OUT = "held out"


@dataclass(frozen=True)
class RunRecord:
    """A trained run, and its results and pictures where it has them."""

    folder: RunFolder
    facts: dict[str, Any]
    results: dict[str, Any] | None
    pictures: dict[str, Tensor]
    stages: dict[str, Any] | None = None  # results of `mode=stages`

    @property
    def stage(self) -> str:
        return self.facts["stage"]

    @property
    def place(self) -> Place | None:
        """The model of generation that the run provides."""
        return place_of(self.stage)

    @property
    def method(self) -> str:
        return BASELINE if self.facts["prior"] == "gaussian" else LEDIFLOW

    def curve(self, key: str, event: str = "train") -> Curve:
        return curve(self.folder.events, event, key)

    def curves(self, key: str) -> dict[str, Curve]:
        """Curves of training and of held-out samples, if logged; held-out losses of the averaged weights if logged."""
        averaged = self.curve("averaged_loss", "validation") if key == "loss" else None
        held_out = averaged if averaged and len(averaged.values) else self.curve(key, "validation")
        curves = {"training": self.curve(key), HELD_OUT: held_out}
        return {name: curve for name, curve in curves.items() if len(curve.values)}

    @property
    def lowest(self) -> int | None:
        """Images seen at the (first) lowest held-out loss of the averaged weights; None if none was logged."""
        seen, losses = finite(self.curve("averaged_loss", "validation"))
        return int(seen[losses.argmin()]) if len(losses) else None


def read_run(path: Path) -> RunRecord:
    """Read a finished run. UserError or RecordError names a file that is missing or cannot be read."""
    folder = RunFolder(path)
    folder.require_export("a trained model", "python -m lediflow.train ...")
    results, pictures, stages = (folder.root / name for name in (RESULTS, PICTURES, STAGE_RESULTS))
    return RunRecord(
        folder=folder,
        facts=folder.exported_facts(),
        results=read_results(results) if results.exists() else None,
        pictures=read_pictures(pictures) if pictures.exists() else {},
        stages=read_stages(stages) if stages.exists() else None,
    )


def read_pictures(path: Path) -> dict[str, Tensor]:
    """The pictures that `lediflow.evaluate` stored for the report, by name."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); {AGAIN}") from error


def finite(curve: Curve) -> Curve:
    """The points whose value is finite."""
    known = np.isfinite(curve.values)
    return Curve(curve.images_seen[known], curve.values[known])
