"""Options of `python -m lediflow.evaluate`; the command adds where runs lie (`paths`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lediflow.evaluation.features import FeaturesConfig
from lediflow.evaluation.grid import GridConfig
from lediflow.evaluation.neighbors import NEIGHBORS
from lediflow.flow.solvers import MOST_STEPS
from lediflow.ranges import bounded, check_ranges
from lediflow.sampling import SamplingOptions

ESTIMATORS = ("exact", "streaming")


@dataclass(kw_only=True)
class MetricsConfig:
    """How metrics are computed."""

    # streaming: one pass, in memory that is independent of the number of images; only MMD and Fréchet distance
    estimator: str = "exact"
    neighbors: int = bounded(
        NEIGHBORS, at_least=1
    )  # of precision, recall, density and coverage; more: wider balls, milder judgement

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"metrics.estimator={self.estimator}: choose one of {', '.join(ESTIMATORS)}")
        check_ranges(self, "metrics.")


@dataclass(kw_only=True)
class RealImagesConfig:
    """What generated images are compared with."""

    path: str = ""  # folder of shards, photographs or latents; only needed with a run
    # where path holds latents: the shards they were made from, to measure against both
    photographs: str | None = None
    split: str = "all"  # all | train | heldout: the part of the images, as the run's training divided them


@dataclass(kw_only=True)
class EvaluateConfig(SamplingOptions):
    """What is evaluated, against what, and with which metrics."""

    mode: str = "metrics"  # metrics | grid | prior | stages | compare
    run: str | None = None  # run folder of a flow ...
    sampler: str | None = None  # ... and of its latent sampler
    baseline: str | None = None  # mode=stages: run folder of a Gaussian flow to compare with
    runs: Any = field(
        default=None, metadata={"types": dict[str, list[str]]}
    )  # mode=grid: {NAME: [FLOW_RUN, SAMPLER_RUN], ...}
    results: list[str] = field(default_factory=list)  # mode=compare: two folders that this command wrote
    images: str | None = None  # or a folder of finished pictures ...
    reference: str | None = None  # ... and a folder of real ones
    watch: str | None = None  # a run that trains: evaluate each new checkpoint of it; also --watch RUN
    watch_seconds: float = bounded(30.0, above=0)  # between two looks at its checkpoints
    data: RealImagesConfig = field(default_factory=RealImagesConfig)
    output: str | None = None  # folder of results.json and figures; null: `results` inside the run, or images
    # file of the reference's features; null: among the runs, under its fingerprint
    statistics: str | None = None
    keep_features: bool = False  # leave the features of generated images beside the results
    count: int = bounded(1024, at_least=1)  # generated images per row; metrics on few images are noisy
    reference_count: int = bounded(0, at_least=0)  # real images; 0 takes all
    step_counts: list[int] = bounded(
        default_factory=lambda: [1, 2, 4, 8], at_least=0, at_most=MOST_STEPS, is_filled=True, is_distinct=True
    )  # solver steps, each measured
    grid: GridConfig = field(default_factory=GridConfig)
    timed_batch: int = bounded(
        16, at_least=1
    )  # images at once when milliseconds are taken, besides one by one
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
