"""Run folders as a report reads them: the exported facts, the event log, results and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lediflow.evaluation.modes.stages.record import STAGES_FILE, read_stages
from lediflow.evaluation.results import AGAIN, read_results
from lediflow.flow.widening import SCALE, WIDTH
from lediflow.records import RecordError, object_if_any
from lediflow.report.run_log import RunLog, read_log
from lediflow.report.smoothing import finite
from lediflow.run_folder import RunFolder
from lediflow.stages import STAGES, Place, place_of
from lediflow.stages.distillation import FLOW_MAP, MEAN_FLOW, REFLOW
from lediflow.stages.protocol import AUTO
from lediflow.tracking.event_log import Curve
from lediflow.training.prior_width import ABOUT

RESULTS, PICTURES = Path("results/results.json"), Path("results/pictures.safetensors")
STAGE_RESULTS = Path("results/stages") / STAGES_FILE
LEDIFLOW, BASELINE, COUPLED = "LeDiFlow", "Flow matching", "OT-CFM"
OBJECTIVES = {REFLOW: "reflow", FLOW_MAP: "flow map", MEAN_FLOW: "MeanFlow"}
HELD_OUT = "held out"


@dataclass(frozen=True)
class RunRecord:
    """A trained run, and its results and pictures where it has them."""

    folder: RunFolder
    facts: dict[str, Any]
    results: dict[str, Any] | None
    pictures: dict[str, Tensor]
    stages: dict[str, Any] | None = None  # results of `mode=stages`
    log: RunLog = field(default_factory=RunLog)
    label: str = ""  # distinguishes it from other runs of the page; empty: its kind does

    @property
    def stage(self) -> str:
        return self.facts["stage"]

    @property
    def place(self) -> Place | None:
        """The model of generation that the run provides."""
        return place_of(self.stage)

    @property
    def is_baseline(self) -> bool:
        return self.facts["prior"] == "gaussian"

    @property
    def method(self) -> str:
        """The name of the run where methods are compared."""
        return self.label or method_of(self.facts)

    @property
    def title(self) -> str:
        """The name of the run on the page: the method where methods are compared, else its folder."""
        kind = STAGES[self.stage].curve if self.stage in STAGES else None
        return self.method if kind and kind.compares_methods else self.label or self.folder.root.name

    def curve(self, key: str, event: str = "train") -> Curve:
        return self.log.curve(event, key)

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


def method_of(facts: dict[str, Any]) -> str:
    """The method by which a run was trained: its prior, its coupling, and its objective unless that is the velocity."""
    options = (facts.get("identity") or {}).get("stage") or {}
    name = BASELINE if facts["prior"] == "gaussian" else LEDIFLOW
    if options.get("coupling") == "optimal_transport":
        name = COUPLED
    objective = OBJECTIVES.get(options.get("objective", ""))
    return f"{name}, {objective}" if objective else name


def read_run(path: Path) -> RunRecord:
    """Read a run, finished or not. UserError or RecordError names a file that is missing or cannot be read."""
    folder = RunFolder(path)
    results, pictures, stages = (folder.root / name for name in (RESULTS, PICTURES, STAGE_RESULTS))
    return RunRecord(
        folder=folder,
        facts=facts_of(folder),
        results=read_results(results) if results.exists() else None,
        pictures=read_pictures(pictures) if pictures.exists() else {},
        stages=read_stages(stages) if stages.exists() else None,
        log=read_log(folder.events),
    )


def facts_of(folder: RunFolder) -> dict[str, Any]:
    """The facts in the export; for a run that has not ended, the same ones from its options.

    UserError for a folder without either.
    """
    if not folder.is_exported and folder.events.is_file() and folder.config.is_file():
        options = folder.recorded_options()
        try:
            return {
                "stage": str(options["stage"]["name"]),
                "prior": str(options["prior"]),
                "data": {"held_out_fraction": options["data"]["held_out_fraction"]},
                "identity": {"stage": options["stage"]},
                **width_so_far(folder, options["stage"]),
            }
        except (LookupError, TypeError) as error:
            raise RecordError(
                f"{folder.config} does not hold the options of a training: {error!r}"
            ) from error
    folder.require_export("a trained model", "python -m lediflow.train ...")
    return folder.exported_facts()


def width_so_far(folder: RunFolder, options: Mapping[str, Any]) -> dict[str, Any]:
    """The facts about the prior's width of a run that has not ended: measured, given, or None, not known yet."""
    if measured := object_if_any(folder.prior_width):
        return {WIDTH: measured.get(WIDTH), SCALE: measured.get(SCALE), ABOUT: measured}
    if WIDTH not in options or options[WIDTH] == AUTO:
        return {WIDTH: None} if WIDTH in options else {}
    scale = options.get(SCALE, AUTO)
    return {WIDTH: options[WIDTH], SCALE: 1.0 if scale == AUTO else scale}


def with_distinct_titles(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs; those that share stage and method are labelled by the ends of their paths, long enough to differ."""
    kinds = Counter((run.stage, run.method) for run in runs)
    paths = {run.folder.root: run.folder.root.absolute().parts for run in runs}
    different = len(set(paths.values()))  # a run may be named twice
    length = 1
    while len({parts[-length:] for parts in paths.values()}) < different:
        length += 1
    return [
        replace(run, label="/".join(paths[run.folder.root][-length:]))
        if kinds[run.stage, run.method] > 1
        else run
        for run in runs
    ]


def read_pictures(path: Path) -> dict[str, Tensor]:
    """The pictures that `lediflow.evaluate` stored for the report, by name."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); {AGAIN}") from error
