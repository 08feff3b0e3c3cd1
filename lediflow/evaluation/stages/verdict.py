"""Which stage limits the quality: one rule on numbers, with the words for it.

At the setting of the solver where the sampler's images are best, the distance from the photographs is taken apart
(T, H, S: MMD of images whose z comes from training images, held-out images, the sampler; F: what photographs reach
among themselves, C: the codec's reconstructions, each 0 where it is not known or below 0):

    codec   C - F            flow   T - max(C, F)            prior   H - T            sampler   S - H

The largest part names the stage, with three exceptions.
- `nothing`: neither S nor H is above F by more than the 95 % margin of that difference.
- The flow's part is the prior's where the prior is too narrow: the flow's start is widened by less than ENOUGH times
  the prior's typical deviation, and with z of training images most evaluations are worse than half as many or fewer
  (`rises`: by more than the margin, and by RISE at least) or no better beyond the margin (`stalls`). An exact solve
  then follows a map too steep to be learnt, and no solver mends it. All flows without widening that were measured
  rise or stall so far above flows of the same training with it; a start that is wide enough leaves the flow to blame.
- The flow's or the sampler's part is the prior's where the prior memorises: held-out z are worse than training z beyond
  the margin, and VGL on held-out images is GAP or more above that on training images. What is trained on such a
  prior suffers with it (a sampler learns the latents of few images), so the prior comes first.
A difference's margin is the root of the sum of the squares of both half intervals, as if they were independent: they
share the reference and the noise, so it errs on the side of caution. Whatever is largest is named even within its
margin, and the words say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lediflow.flow.widening import WIDEST

RISE = 0.1  # how much worse with more evaluations, as a share of the best, counts as a rise
ENOUGH = 2.0  # widening in typical deviations; the best found were 2.5 to 3
GAP = 0.5  # VGL in nats per entry, held-out above training: the prior memorises; 0.04 and 0.18 on larger sets

Limits = Literal["prior", "sampler", "flow", "codec", "nothing"]
Setting = tuple[str, int]  # solver, steps
SOURCES = ("training", "heldout", "sampler")


class Level(NamedTuple):
    """An MMD with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.2f}" if abs(self.value) >= 1 else f"{self.value:.3f}"


ZERO = Level(0.0, 0.0, 0.0)


class Part(NamedTuple):
    """How much of the distance a stage adds, and the 95 % margin of that."""

    value: float
    margin: float

    @property
    def is_certain(self) -> bool:
        return self.value > self.margin


class Rise(NamedTuple):
    """Quality with z of training images with the most evaluations, and the best with half as many or fewer."""

    best: Level
    best_nfe: float
    last: Level
    last_nfe: float

    @property
    def rises(self) -> bool:
        change = difference(self.last, self.best)
        return change.is_certain and change.value >= RISE * max(self.best.value, 0.0)

    @property
    def stalls(self) -> bool:
        return not difference(self.best, self.last).is_certain


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers that a verdict rests on; None: not known."""

    curves: Mapping[
        str, Mapping[Setting, tuple[float, Level]]
    ]  # by source of z: (evaluations, MMD) by setting
    real: Level | None = None  # photographs among themselves
    codec_floor: Level | None = None  # reconstructions against photographs
    vgl_training: float | None = None  # nats per entry
    vgl_held_out: float | None = None
    sigma: float | None = None  # typical, of the auxiliary model's prior on held-out images
    residual: float | None = None  # typical distance of held-out images from its mean, as a deviation
    prior_widening: float = 0.0
    prior_scale: float = 1.0
    sampler_images: int | None = None  # that the latent sampler was trained on


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What limits the quality, in a word and in words, and the parts it was chosen from."""

    limits: Limits
    text: str
    setting: Setting  # where the parts were taken
    parts: dict[str, Part]
    is_certain: bool  # the part is larger than its margin
    cause: str  # memorising | narrow | "": what is wrong with the prior


def difference(above: Level, below: Level) -> Part:
    return Part(above.value - below.value, math.hypot(above.reach, below.reach))


def judge(evidence: Evidence) -> Verdict:
    """The rule of this module; ValueError where no setting was measured with all three sources of z."""
    setting = best_setting(evidence)
    training, held_out, sampler = (evidence.curves[name][setting][1] for name in SOURCES)
    floor = evidence.real if evidence.real is not None and evidence.real.value > 0 else ZERO
    parts = parts_of(training, held_out, sampler, floor, evidence.codec_floor)
    limits: Limits = max(parts, key=lambda name: parts[name].value)  # type: ignore[arg-type,assignment]
    rise, cause = rise_of(evidence), ""
    if is_nothing(evidence, held_out, sampler, floor):
        limits = "nothing"
    elif limits == "prior" or (limits in ("flow", "sampler") and memorises(parts, evidence)):
        limits, cause = "prior", "memorising"
    elif limits == "flow" and parts["flow"].is_certain and is_too_narrow(rise, evidence):
        limits, cause = "prior", "narrow"
    is_certain = limits == "nothing" or parts["flow" if cause == "narrow" else limits].is_certain
    return Verdict(limits=limits, text="", setting=setting, parts=parts, is_certain=is_certain, cause=cause)


def best_setting(evidence: Evidence) -> Setting:
    """Where the sampler's images are best, of the settings that all sources were measured at."""
    shared = [
        setting
        for setting in evidence.curves.get("sampler", {})
        if setting[1] and all(setting in evidence.curves.get(name, {}) for name in SOURCES)
    ]
    if not shared:
        raise ValueError(
            f"no setting of the solver was measured with z of {', '.join(SOURCES)} alike; measure one step or more of "
            "each"
        )
    return min(shared, key=lambda setting: evidence.curves["sampler"][setting][1].value)


def parts_of(
    training: Level, held_out: Level, sampler: Level, floor: Level, codec_floor: Level | None
) -> dict[str, Part]:
    """What each stage adds; a codec that is not known adds nothing."""
    parts = {}
    below = floor
    if codec_floor is not None:
        parts["codec"] = difference(codec_floor, floor)
        below = max(codec_floor, floor)
    return parts | {
        "flow": difference(training, below),
        "prior": difference(held_out, training),
        "sampler": difference(sampler, held_out),
    }


def is_nothing(evidence: Evidence, held_out: Level, sampler: Level, floor: Level) -> bool:
    """Whether the images cannot be told from photographs, beyond what photographs differ among themselves."""
    real = evidence.real or ZERO
    return all(
        level.value - floor.value <= math.hypot(level.reach, real.reach) for level in (held_out, sampler)
    )


def rise_of(evidence: Evidence) -> Rise | None:
    """Of the solver with most settings, with z of training images; None where none has half the evaluations."""
    curve = {setting: point for setting, point in evidence.curves["training"].items() if setting[1]}
    solvers = [solver for solver, _ in curve]
    if not solvers:
        return None
    solver = max(dict.fromkeys(solvers), key=solvers.count)
    points = sorted((nfe, level) for (name, _), (nfe, level) in curve.items() if name == solver)
    last_nfe, last = points[-1]
    earlier = [(nfe, level) for nfe, level in points if 2 * nfe <= last_nfe]
    if not earlier:
        return None
    best_nfe, best = min(earlier, key=lambda point: point[1].value)
    return Rise(best, best_nfe, last, last_nfe)


def memorises(parts: Mapping[str, Part], evidence: Evidence) -> bool:
    """Whether both the images and the likelihood say so."""
    gap = vgl_gap(evidence)
    return parts["prior"].is_certain and gap is not None and gap >= GAP


def vgl_gap(evidence: Evidence) -> float | None:
    """VGL on held-out images less that on training images, in nats per entry."""
    if evidence.vgl_training is None or evidence.vgl_held_out is None:
        return None
    return evidence.vgl_held_out - evidence.vgl_training


def is_too_narrow(rise: Rise | None, evidence: Evidence) -> bool:
    return rise is not None and (rise.rises or rise.stalls) and not is_wide(evidence)


def is_wide(evidence: Evidence) -> bool:
    """Whether the start is widened enough for the prior's typical deviation; False where that is not known."""
    known = [value for value in (evidence.sigma, evidence.residual) if value is not None]
    return bool(known) and start_deviation(evidence) >= min(ENOUGH * max(known), WIDEST)


def start_deviation(evidence: Evidence) -> float:
    """The start's typical deviation beyond an unscaled prior's: sqrt((k^2 - 1) sigma^2 + s^2)."""
    scaled = (evidence.prior_scale**2 - 1) * (evidence.sigma or 0.0) ** 2
    return math.sqrt(max(0.0, scaled) + evidence.prior_widening**2)


def evidence_of(document: Mapping[str, Any]) -> Evidence:
    """From what stages.json holds: rows, losses, real, codec_floor."""
    curves: dict[str, dict[Setting, tuple[float, Level]]] = {}
    for row in document["rows"]:
        curves.setdefault(row["z"], {})[(row["solver"], row["steps"])] = (row["nfe"], level_of(row))
    losses = document["losses"]
    prior = losses.get("prior", {})
    return Evidence(
        curves=curves,
        real=document.get("real") and level_of(document["real"]),
        codec_floor=document.get("codec_floor") and level_of(document["codec_floor"]),
        vgl_training=prior.get("training", {}).get("vgl"),
        vgl_held_out=prior.get("heldout", {}).get("vgl"),
        sigma=prior.get("heldout", {}).get("sigma_geometric_mean"),
        residual=prior.get("heldout", {}).get("residual_geometric_mean"),
        prior_widening=losses.get("prior_widening", 0.0),
        prior_scale=losses.get("prior_scale", 1.0),
        sampler_images=losses.get("sampler", {}).get("images_seen"),
    )


def level_of(row: Mapping[str, Any]) -> Level:
    return Level(row["mmd"], row["low"], row["high"])


def told(verdict: Verdict) -> dict[str, Any]:
    """For stages.json."""
    parts = {name: part._asdict() for name, part in verdict.parts.items()}
    solver, steps = verdict.setting
    return {
        "limits": verdict.limits,
        "text": verdict.text,
        "cause": verdict.cause,
        "is_certain": verdict.is_certain,
        "setting": {"solver": solver, "steps": steps},
        "parts": parts,
    }
