"""Options of `python -m lediflow.evaluate`; the command adds the default folders of runs and data (`paths`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lediflow.evaluation.features import FeaturesConfig
from lediflow.evaluation.neighbors import NEIGHBORS
from lediflow.flow.solvers import JUMP, MOST_STEPS, check_solver
from lediflow.ranges import bounded, check_ranges
from lediflow.sampling import SamplingOptions

ESTIMATORS = ("exact", "streaming")
GRID_SOLVERS = ("euler", "midpoint", "heun3")  # the default of grid.solvers for a velocity
GRID_STEPS = (0, 1, 2, 4, 8)  # of grid.steps
# options that no number depends on, besides times on the runtime, which each row names
IRRELEVANT = ("paths", "output", "keep_features", "runtime")


@dataclass(kw_only=True)
class MetricsConfig:
    """How metrics are computed."""

    # streaming: one pass, in memory that is independent of the number of images; only MMD and Fréchet distance
    estimator: str = "exact"
    # for precision, recall, density and coverage; more neighbours make larger balls and a more lenient metric
    neighbors: int = bounded(NEIGHBORS, at_least=1)

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"metrics.estimator={self.estimator}: choose one of {', '.join(ESTIMATORS)}")
        check_ranges(self, "metrics.")


@dataclass(kw_only=True)
class GridConfig:
    """`mode=grid` and `mode=stages`: every combination is measured; each generates `count` images."""

    # null: jump of a flow map, else euler, midpoint, heun3 (stages: midpoint); dopri5 once, without steps. With several
    # runs each is measured with those that fit it
    solvers: list[str] | None = None
    # 0: draws of the learned prior, once; null: 0, 1, 2, 4, 8
    steps: list[int] | None = bounded(None, at_least=0, at_most=MOST_STEPS, is_filled=True)
    # of the prior; lower values give smoother images
    temperatures: list[float] = bounded(default_factory=lambda: [1.0], at_least=0, is_filled=True)

    def __post_init__(self) -> None:
        check_ranges(self, "grid.")
        if self.solvers == []:
            raise ValueError("grid.solvers=[] is empty; give at least one value")
        for solver in self.solvers or GRID_SOLVERS:
            for steps in self.steps or GRID_STEPS:
                check_solver(solver, 1 if steps == 0 else steps)


def fitting_solvers(
    asked: list[str] | None, default: Sequence[str], *, is_flow_map: bool, is_alone: bool
) -> list[str]:
    """The solvers of grid.solvers that a flow is measured with.

    If it is measured alone, all that were asked for: those that do not fit are refused. Next to other runs, those that
    fit it; all, to be refused, where none does.
    """
    if asked is None:
        return [JUMP] if is_flow_map else [*default]
    fitting = [solver for solver in asked if (solver == JUMP) == is_flow_map]
    return asked if is_alone or not fitting else fitting


@dataclass(kw_only=True)
class RealImagesConfig:
    """What generated images are compared with."""

    path: str = ""  # folder of shards that hold photographs or latents; needed with a run
    # if path holds latents: the shards they were encoded from, to measure against both
    photographs: str | None = None
    split: str = "all"  # all | train | heldout: part of the images, as divided by the run's training


@dataclass(kw_only=True)
class EvaluateConfig(SamplingOptions):
    """What is evaluated, against what, and with which metrics."""

    mode: str = "metrics"  # metrics | grid | prior | stages | compare
    run: str | None = None  # run folder of the flow that is evaluated
    sampler: str | None = None  # run folder of its latent sampler; none for a Gaussian baseline
    baseline: str | None = None  # mode=stages: run folder of a Gaussian flow to compare with
    # mode=grid: {NAME: [FLOW_RUN, SAMPLER_RUN], ...}
    runs: Any = field(default=None, metadata={"types": dict[str, list[str]]})
    results: list[str] = field(default_factory=list)  # mode=compare: two folders that this command wrote
    images: str | None = None  # instead of run: a folder of finished pictures
    reference: str | None = None  # with images: a folder of real pictures to compare with
    watch: str | None = None  # evaluate each new checkpoint of this run while it trains; also --watch RUN
    watch_seconds: float = bounded(30.0, above=0)  # between checks for new checkpoints
    data: RealImagesConfig = field(default_factory=RealImagesConfig)
    output: str | None = None  # folder of results.json and figures; null: `results` inside the run, or images
    # file for the features of the reference; null: a cache in paths.runs
    statistics: str | None = None
    keep_features: bool = False  # keep the features of generated images with the results
    count: int = bounded(1024, at_least=1)  # generated images per row; metrics on few images are noisy
    # real images, evenly spaced over the shards; 0 takes all
    reference_count: int = bounded(0, at_least=0)
    # numbers of solver steps, each measured
    step_counts: list[int] = bounded(
        default_factory=lambda: [1, 2, 4, 8], at_least=0, at_most=MOST_STEPS, is_filled=True, is_distinct=True
    )
    grid: GridConfig = field(default_factory=GridConfig)
    # batch size at which milliseconds are measured, besides single images
    timed_batch: int = bounded(16, at_least=1)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


def request(command: EvaluateConfig) -> dict[str, Any]:
    """The options that the numbers of results.json depend on, as it records them."""
    options = asdict(command)
    return {"options": {key: value for key, value in options.items() if key not in IRRELEVANT}}
