"""Every number that a run logs: its title, its unit, which direction is better, and what summarises it.

Names are those of `event_log.numbers`: `event/key`, and `event/key/item` for lists and dicts. In a pattern, `*` stands
for one such part. `VALUES` has what training records, under the names that the shipped stages use. A stage declares
other values itself (`StageKind.values`), the metrics of images have their own table; `evaluation/logged.py` joins them.
W&B, TensorBoard and the dashboards read these tables; a number without an entry is shown under its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

from lediflow.tracking.event_log import numbers

Summary = Literal["min", "max", "last"]
Direction = Literal["lower", "higher"]

# sections of a dashboard
LOSS, BY_TIME, BY_SIGMA, PRIOR = "Loss", "Loss by time", "Loss by sigma", "Prior"
OPTIMISER, SPEED, RANKS, RUN = "Optimiser", "Throughput", "Ranks", "Run"
QUALITY, PICTURES, OTHER = "Quality", "Pictures", "Other"


@dataclass(frozen=True, kw_only=True)
class LoggedValue:
    """What views say about a logged number."""

    title: str  # parts of the name that match a `*` replace each {}
    section: str = OTHER
    unit: str = ""  # empty: a pure number
    better: Direction | None = None
    summaries: tuple[Summary, ...] = ("last",)

    @property
    def heading(self) -> str:
        """Title and unit, as in `step, 95 % quantile (s)`."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


Values = Mapping[str, LoggedValue]


def lower(section: str, title: str, unit: str = "") -> LoggedValue:
    """A value that is better when lower; its minimum and its last value are kept."""
    return LoggedValue(title=title, section=section, unit=unit, better="lower", summaries=("min", "last"))


def higher(section: str, title: str, unit: str = "") -> LoggedValue:
    """A value that is better when higher; its maximum and its last value are kept."""
    return LoggedValue(title=title, section=section, unit=unit, better="higher", summaries=("max", "last"))


def neutral(section: str, title: str, unit: str = "", *summaries: Summary) -> LoggedValue:
    """A value without a better direction."""
    return LoggedValue(title=title, section=section, unit=unit, summaries=summaries or ("last",))


# what stages report for a batch: means in the events `train` and `validation`
STAGE_VALUES: Values = {
    "loss": lower(LOSS, "loss"),
    "vgl": lower(LOSS, "variance-guided loss", "nats per pixel and channel"),
    "velocity_mse": lower(LOSS, "squared error of the velocity"),
    "map_mse": lower(LOSS, "squared error of the mean velocity"),
    "whole_jump_mse": lower(LOSS, "squared error of the jump from 0 to 1"),
    "kl_nats": neutral(PRIOR, "KL of the latents", "nats per image"),
    "kl_nats_by_channel/*": neutral(PRIOR, "KL of latent channel {}", "nats per image"),
    "beta": neutral(PRIOR, "weight of the KL"),
    "prior_mse": lower(PRIOR, "squared error of the prior's mean"),
    "prior_sigma": neutral(PRIOR, "mean sigma of the prior", "", "min", "last"),
    "share_at_floor": neutral(PRIOR, "share of pixels at the floor of sigma", "", "max", "last"),
    "latent_mean_square": neutral(PRIOR, "mean square of the latents"),
    "loss_by_time/*": lower(BY_TIME, "loss, time bin {}"),
    "velocity_mse_by_time/*": lower(BY_TIME, "squared error of the velocity, time bin {}"),
    "loss_by_sigma/*": lower(BY_SIGMA, "loss, sigma bin {}"),
}

# what the loop records besides
LOOP_VALUES: Values = {
    "train/gradient_norm": neutral(OPTIMISER, "gradient norm", "", "max", "last"),
    "train/learning_rate": neutral(OPTIMISER, "learning rate"),
    "train/images_per_second": higher(SPEED, "throughput", "images/s"),
    "train/tflops": higher(SPEED, "arithmetic of a device", "TFLOP/s"),
    "train/mfu": higher(SPEED, "model FLOPs utilisation"),
    "train/data_wait_share": lower(SPEED, "share of the time spent waiting for data"),
    "train/peak_memory_gib": neutral(SPEED, "peak memory of a device", "GiB", "max", "last"),
    "train/corrupt_samples": neutral(RUN, "corrupt samples"),
    "validation/averaged_loss": lower(LOSS, "held-out loss, averaged weights"),
    "validation/best_loss": lower(LOSS, "lowest held-out loss"),
    "validation/best_images_seen": neutral(LOSS, "images seen at the lowest held-out loss", "images"),
    "validation/rise": neutral(LOSS, "rise of the held-out loss since its lowest", "", "max", "last"),
    "validation/noise": neutral(LOSS, "noise of the rise"),
    "validation/samples": neutral(RUN, "held-out samples of a validation", "samples"),
    "validation/seconds": neutral(RUN, "duration of a validation", "s", "max", "last"),
    "held_out_turned/best_images_seen": neutral(LOSS, "turn: images seen at the lowest loss", "images"),
    "held_out_turned/best_loss": neutral(LOSS, "turn: lowest held-out loss"),
    "held_out_turned/rise": neutral(LOSS, "turn: rise of the held-out loss"),
    "held_out_turned/noise": neutral(LOSS, "turn: noise of the rise"),
    "start/ranks": neutral(RUN, "ranks at the start", "ranks"),
    "resume/ranks": neutral(RUN, "ranks after a requeue", "ranks"),
    "start/restart": neutral(RUN, "restarts of the SLURM job before the start"),
    "resume/restart": neutral(RUN, "restarts of the SLURM job before the requeue"),
    "resume/seconds": neutral(RUN, "duration of loading a checkpoint", "s", "max", "last"),
    "checkpoint/seconds": neutral(RUN, "duration of writing a checkpoint", "s", "max", "last"),
    "checkpoint/waited_seconds": neutral(RUN, "training stopped for a checkpoint", "s", "max", "last"),
    "compiled/seconds": neutral(RUN, "duration of the step that compiles", "s", "max", "last"),
    "bad_step/norm": neutral(RUN, "gradient norm of a step that was left out"),
    "pictures/seconds": neutral(RUN, "duration of making pictures", "s", "max", "last"),
    "pictures/share": neutral(RUN, "share of the time that pictures took", "", "max", "last"),
    "prior_width/prior_widening": neutral(PRIOR, "width added to the prior"),
    "prior_width/prior_scale": neutral(PRIOR, "factor of the prior's sigma"),
    "prior_width/factor": neutral(PRIOR, "width: factor of the measured deviation"),
    "prior_width/sigma": neutral(PRIOR, "width: typical sigma of the prior"),
    "prior_width/residual": neutral(PRIOR, "width: typical residual of the prior's mean"),
    "prior_width/images": neutral(PRIOR, "width: measured images", "images"),
    # the watchdog's faults: place of each rank concerned
    "stall/ranks/*/*": neutral(RUN, "stall, rank {}: {}"),
    "rank_failed/ranks/*/*": neutral(RUN, "failed rank {}: {}"),
    "rank_silent/ranks/*/*": neutral(RUN, "silent rank {}: {}"),
}
QUANTILES = {"p50": "median", "p95": "95 % quantile", "max": "longest"}
PARTS = {
    "step": "step",
    "data": "wait for data",
    "communication": "communication",
    "work": "own work of the rank",
}


def rank_values() -> Values:
    """The event `ranks`: quantiles of each rank's step and its parts."""
    return {
        f"ranks/{part}_{quantile}/*": neutral(RANKS, f"{title}, {words}, rank {{}}", "s", "max", "last")
        for part, title in PARTS.items()
        for quantile, words in QUANTILES.items()
    }


def of_stage(values: Values) -> dict[str, LoggedValue]:
    """The names and entries of a stage's values in the events `train` and `validation`."""
    held_out = {key: replace(value, title=f"held-out {value.title}") for key, value in values.items()}
    trained = {f"train/{key}": value for key, value in values.items()}
    return trained | {f"validation/{key}": value for key, value in held_out.items()}


# by name or pattern; what an added tracker or engine records is one more entry
VALUES: dict[str, LoggedValue] = {**of_stage(STAGE_VALUES), **LOOP_VALUES, **rank_values()}


def find_value(name: str, values: Values = VALUES) -> LoggedValue | None:
    """The entry of a number, with the parts of its name in the title; None if there is none."""
    if name in values:
        return values[name]
    parts = name.split("/")
    for pattern, value in values.items():
        if (found := matched(pattern, parts)) is not None:
            return replace(value, title=value.title.format(*found))
    return None


def value_of(name: str, values: Values = VALUES) -> LoggedValue:
    """The entry of a number; for one without an entry, its name as title."""
    return find_value(name, values) or LoggedValue(title=name.replace("_", " ").replace("/", ", "))


def matched(pattern: str, parts: list[str]) -> list[str] | None:
    """The parts of a name that the wildcards of a pattern stand for; None if it does not match."""
    wanted = split(pattern)
    if len(wanted) != len(parts) or not all(map(fnmatchcase, parts, wanted)):
        return None
    return [part for part, place in zip(parts, wanted, strict=True) if "*" in place]


@cache
def split(pattern: str) -> list[str]:
    return pattern.split("/")


def unknown_names(events: Iterable[Mapping[str, Any]], values: Values = VALUES) -> list[str]:
    """Names of the numbers in these events that have no entry."""
    names = {name for event in events for name in names_in(event)}
    return sorted(name for name in names if find_value(name, values) is None)


def names_in(event: Mapping[str, Any]) -> list[str]:
    """Names of the numbers of an event, besides its place on the image clock."""
    values = {key: value for key, value in event.items() if key not in ("time", "event", "images_seen")}
    return [name for name, _ in numbers(event["event"], values)]
