"""Which panels a dashboard shows for each stage, in sections.

A panel names logged numbers as `evaluation/logged.py:logged_values` does: exact names, or patterns in which `*` stands
for one part. Its x axis is `images_seen`. The sections of training are the same for every stage; `STAGE_PANELS` has
what the shipped stages show besides. An added stage has its loss and every value that it declares (`StageKind.values`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lediflow.evaluation.logged import logged_values
from lediflow.evaluation.metrics import METRICS, Metric
from lediflow.stages import STAGES, StageKind, stage_kind
from lediflow.tracking.metrics import (
    BY_SIGMA,
    BY_TIME,
    LOSS,
    OPTIMISER,
    PICTURES,
    PRIOR,
    QUALITY,
    RANKS,
    RUN,
    SPEED,
    Summary,
    Values,
    value_of,
)

X = "images_seen"
ORDER = (LOSS, PICTURES, QUALITY, BY_TIME, BY_SIGMA, PRIOR, OPTIMISER, SPEED, RANKS, RUN)
OPEN = (LOSS, PICTURES, QUALITY)  # sections that are unfolded when the dashboard is opened
STEP_COUNTS = (1, 2, 4, 8)  # of the default evaluation, whose rows are named midpoint_1, ...
SHOWN_PICTURES = {
    "samples": "samples from fixed noise",
    "heldout": "held-out images: prior mean, sigma, draw, flow result",
    "interpolation": "interpolation",
}
# columns of the table of runs: (number, summary)
COLUMNS: tuple[tuple[str, Summary], ...] = (
    ("validation/averaged_loss", "min"),
    ("validation/averaged_loss", "last"),
    ("train/loss", "last"),
    ("train/images_per_second", "max"),
    ("train/mfu", "max"),
    ("train/peak_memory_gib", "max"),
)


@dataclass(frozen=True)
class Panel:
    """One plot: curves over `images_seen`; bars or points of the runs' last values; or pictures."""

    title: str
    numbers: tuple[str, ...]  # names or patterns; of points the x and the y value; of pictures their keys
    kind: Literal["curves", "bars", "points", "pictures"] = "curves"
    is_log: bool = False  # logarithmic y axis

    @property
    def regex(self) -> str | None:
        """A regular expression for the names of its curves, if one of them is a pattern."""
        if not any("*" in number for number in self.numbers):
            return None
        choices = [re.escape(number).replace(r"\*", "[^/]+") for number in self.numbers]
        return f"^({'|'.join(choices)})$"

    def unit(self, values: Values) -> str:
        """The unit of the y axis."""
        return "" if self.kind == "pictures" else value_of(self.numbers[-1], values).unit


class Section(NamedTuple):
    """Panels under one heading."""

    name: str
    panels: list[Panel]

    @property
    def is_open(self) -> bool:
        return self.name in OPEN


class Dashboard(NamedTuple):
    """The dashboard of the runs of a stage."""

    stage: str
    sections: list[Section]

    @property
    def title(self) -> str:
        return f"LeDiFlow: {self.stage.replace('_', ' ')}"

    @property
    def values(self) -> Values:
        return logged_values(self.stage)


def both(title: str, key: str, *, is_log: bool = False) -> Panel:
    """A value of the stage, in training and on held-out samples."""
    return Panel(title, (f"train/{key}", f"validation/{key}"), is_log=is_log)


def apart(title: str, key: str) -> list[Panel]:
    """A binned value, in training and on held-out samples, with a panel for each."""
    return [Panel(title, (f"train/{key}/*",)), Panel(f"held-out {title}", (f"validation/{key}/*",))]


def of_prior(title: str, key: str) -> Panel:
    """A diagnostic of the prior, measured by `evaluate --watch`."""
    return Panel(title, (f"evaluation/prior/{key}",))


COMMON: dict[str, list[Panel]] = {
    LOSS: [
        both("loss: training and held-out", "loss"),
        Panel("held-out loss of the averaged weights", ("validation/averaged_loss", "validation/best_loss")),
        Panel("rise of the held-out loss, and its noise", ("validation/rise", "validation/noise")),
    ],
    OPTIMISER: [
        Panel("gradient norm", ("train/gradient_norm",), is_log=True),
        Panel("learning rate", ("train/learning_rate",)),
        Panel("gradient norm of steps left out", ("bad_step/norm",), is_log=True),
    ],
    SPEED: [
        Panel("throughput", ("train/images_per_second",)),
        Panel("model FLOPs utilisation", ("train/mfu",)),
        Panel("arithmetic of a device", ("train/tflops",)),
        Panel("peak memory of a device", ("train/peak_memory_gib",)),
        Panel("share of the time spent waiting for data", ("train/data_wait_share",)),
    ],
    RANKS: [
        Panel("step by rank, median", ("ranks/step_p50/*",)),
        Panel("step by rank, 95 % quantile", ("ranks/step_p95/*",)),
        Panel("wait for data by rank, 95 % quantile", ("ranks/data_p95/*",)),
        Panel("communication by rank, median", ("ranks/communication_p50/*",)),
        Panel("own work by rank, median", ("ranks/work_p50/*",)),
    ],
    RUN: [
        Panel("checkpoints: writing, and training stopped", ("checkpoint/seconds", "checkpoint/waited_seconds")),
        Panel("starts: loading a checkpoint, compiling", ("resume/seconds", "compiled/seconds")),
        Panel("validations and pictures", ("validation/seconds", "pictures/seconds")),
        Panel("share of the time that pictures took", ("pictures/share",)),
        Panel("corrupt samples", ("train/corrupt_samples",)),
    ],
}  # fmt: skip
DISTILLED = [
    both("squared error of the mean velocity", "map_mse"),
    both("squared error of the jump from 0 to 1", "whole_jump_mse"),
]
STAGE_PANELS: dict[str, dict[str, list[Panel]]] = {
    "auxiliary": {
        LOSS: [
            both("variance-guided loss", "vgl"),
            both("squared error of the prior's mean", "prior_mse", is_log=True),
        ],
        BY_SIGMA: apart("variance-guided loss by sigma", "loss_by_sigma"),
        PRIOR: [
            both("mean sigma", "prior_sigma"),
            both("share of pixels at the floor of sigma", "share_at_floor"),
            both("KL of the latents", "kl_nats"),
            *apart("KL by latent channel", "kl_nats_by_channel"),
            both("weight of the KL", "beta"),
            of_prior("calibration error of sigma (ENCE)", "ence"),
            of_prior("coverage error of sigma", "coverage_error"),
            of_prior("variance of z-scores (1: calibrated)", "z_variance"),
            of_prior("PSNR of the mean", "psnr"),
            of_prior("negative log-likelihood", "nll_nats"),
        ],
    },
    "flow": {
        LOSS: [both("squared error of the velocity", "velocity_mse"), *DISTILLED],
        BY_TIME: [
            *apart("loss by time", "loss_by_time"),
            *apart("squared error of the velocity by time", "velocity_mse_by_time"),
        ],
        BY_SIGMA: apart("squared error by sigma", "loss_by_sigma"),
        PRIOR: [both("mean sigma of the start", "prior_sigma")],
    },
    "latent_sampler": {
        LOSS: [both("squared error of the velocity", "velocity_mse"), *DISTILLED],
        BY_TIME: apart("loss by time", "loss_by_time"),
        PRIOR: [both("mean square of the latents (1: as the target)", "latent_mean_square")],
    },
}  # fmt: skip


def dashboard_of(stage: str) -> Dashboard:
    """The dashboard of a stage; UserError for one that is not in the table."""
    kind = stage_kind(stage)
    parts = [COMMON, STAGE_PANELS.get(stage, {}), picture_panels(kind), quality_panels(kind)]
    if stage not in STAGE_PANELS:
        parts.append(declared_panels(kind))
    sections = [Section(name, [panel for part in parts for panel in part.get(name, [])]) for name in ORDER]
    return Dashboard(stage, [section for section in sections if section.panels])


def dashboards() -> list[Dashboard]:
    """The dashboards of all stages, in the order of their table."""
    return [dashboard_of(name) for name in STAGES]


def declared_panels(kind: StageKind) -> dict[str, list[Panel]]:
    """A panel for each value that an added stage declares; `*` makes one for training and one for held-out samples."""
    found: dict[str, list[Panel]] = {}
    for key, value in kind.values.items():
        title = value.title.replace("{}", "").strip(", ")
        panels = apart(title, key.removesuffix("/*")) if key.endswith("/*") else [both(title, key)]
        found.setdefault(value.section if value.section in ORDER else LOSS, []).extend(panels)
    return found


def picture_panels(kind: StageKind) -> dict[str, list[Panel]]:
    """The pictures that are made while the stage trains; a stage on latents shows no held-out images."""
    names = [name for name in SHOWN_PICTURES if not (kind.on_latents and name == "heldout")]
    return {PICTURES: [Panel(SHOWN_PICTURES[name], (f"pictures/{name}",), kind="pictures") for name in names]}


def quality_panels(kind: StageKind) -> dict[str, list[Panel]]:
    """The metrics of images along the training, and against their cost; none for a stage that makes no images."""
    if kind.place not in ("flow", "latent_sampler"):
        return {}
    curves = [Panel(metric.name, (f"evaluation/*/{metric.shown_key}",)) for metric in METRICS.values()]
    main = next(iter(METRICS.values()))
    return {QUALITY: [*curves, *cost_panels(main)]}


def cost_panels(metric: Metric) -> list[Panel]:
    """A metric against the number of network calls and the time of an image, over the runs."""
    rows = [f"evaluation/midpoint_{steps}" for steps in STEP_COUNTS]
    calls = ", ".join(str(2 * steps) for steps in STEP_COUNTS)
    bars = Panel(
        f"{metric.name} at NFE {calls} (midpoint)",
        tuple(f"{row}/{metric.shown_key}" for row in rows),
        kind="bars",
    )
    points = [
        Panel(
            f"{metric.name} against ms per image, {steps} midpoint steps",
            (f"evaluation/midpoint_{steps}/ms_per_image", f"evaluation/midpoint_{steps}/{metric.shown_key}"),
            kind="points",
        )
        for steps in STEP_COUNTS[1:3]
    ]
    return [bars, *points]
