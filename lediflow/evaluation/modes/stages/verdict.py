"""Which stage limits the quality: a decision rule on the MMDs and losses that `mode=stages` measures.

At the solver setting where the sampler's images are best, the distance from the photographs is split into parts. T, H
and S are the MMDs of images whose z comes from training images, held-out images and the sampler; F is the MMD between
two halves of the photographs, C that of the codec's reconstructions (F and C: 0 where unknown or negative):

    codec   C - F            flow   T - max(C, F)            prior   H - T            sampler   S - H

The largest part names the stage, with four exceptions.
- `nothing`: neither S nor H is above F by more than the 95 % margin of that difference.
- `prior` instead of `flow`, where the prior is too narrow: the flow's start is widened by less than ENOUGH times the
  prior's typical deviation, and with z of training images the MMD at the most evaluations is worse than the best at
  half as many or fewer (`gets_worse`: by more than the margin, and by RISE at least), or not better beyond the margin
  (`does_not_improve`). The map is then too steep to be learned, and a more exact solver does not help. All flows
  without widening that were measured so far have this trend and a larger MMD than widened flows of the same training.
  Where the start is wide enough, the verdict stays `flow`.
- `prior` instead of `flow` or `sampler`, where the prior memorises: held-out z are worse than training z beyond the
  margin, and VGL on held-out images is GAP or more above that on training images. The stages that are trained on such
  a prior get worse with it (a sampler learns the latents of few images), so the prior is to be corrected first.
- `flow` instead of `prior`, where H - T is the largest part but that gap of VGL is below GAP: the prior describes
  held-out images as well as training images, so it is the flow that memorises which image belongs to which z.
A difference's margin is the square root of the sum of the squares of both half intervals, as if they were independent;
since they share the reference and the noise, it is conservative. The largest part is named even within its margin, and
the text then says that it is not significant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lediflow.evaluation.modes.stages.evidence import (
    ZERO,
    Contribution,
    Evidence,
    FlowLoss,
    MmdInterval,
    SolverSteps,
    Trend,
    difference,
)
from lediflow.flow.solvers import JUMP
from lediflow.flow.widening import WIDEST

ENOUGH = 2.0  # widening in typical deviations; the best found were 2.5 to 3
GAP = 0.5  # nats per entry: held-out VGL above training VGL where the prior memorises; 0.04 and 0.18 on larger sets

LimitingStage = Literal["prior", "sampler", "flow", "codec", "nothing"]
SOURCES = ("training", "heldout", "sampler")
SHOWN_BY = {"narrow": "flow", "memorising": "prior"}  # cause -> the part that shows it
NOT_SIGNIFICANT = "The difference is not significant for this number of images; measure with a larger count."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The stage that limits the quality, as a name and as text, and the parts that it was chosen from."""

    limits: LimitingStage
    text: str
    setting: SolverSteps  # where the parts were taken
    parts: dict[str, Contribution]
    is_certain: bool  # the part that shows it is larger than its margin
    cause: str  # memorising (prior or flow) | narrow (prior) | ""


def judge(evidence: Evidence) -> Verdict:
    """The verdict of this module's rule, with its text.

    ValueError where no solver setting was measured with all three sources of z.
    """
    setting = best_setting(evidence)
    training, held_out, sampler = (evidence.curves[name][setting][1] for name in SOURCES)
    floor = evidence.real if evidence.real is not None and evidence.real.value > 0 else ZERO
    parts = parts_of(training, held_out, sampler, floor, evidence.codec_floor)
    limits: LimitingStage = max(parts, key=lambda name: parts[name].value)  # type: ignore[arg-type,assignment]
    trend, cause = trend_of(evidence), ""
    if is_indistinguishable(evidence, held_out, sampler, floor):
        limits = "nothing"
    elif limits == "prior" and is_good_on_held_out_images(evidence):
        limits, cause = "flow", "memorising"
    elif limits == "prior" or (limits in ("flow", "sampler") and memorises(parts, evidence)):
        limits, cause = "prior", "memorising"
    elif limits == "flow" and parts["flow"].is_certain and is_too_narrow(trend, evidence):
        limits, cause = "prior", "narrow"
    is_certain = limits == "nothing" or parts[SHOWN_BY.get(cause, limits)].is_certain
    found = Verdict(limits=limits, text="", setting=setting, parts=parts, is_certain=is_certain, cause=cause)
    return replace(found, text=verdict_text(found, evidence))


def best_setting(evidence: Evidence) -> SolverSteps:
    """The setting with the lowest MMD of the sampler's images, among those that all sources were measured at."""
    shared = [
        setting
        for setting in evidence.curves.get("sampler", {})
        if setting[1] and all(setting in evidence.curves.get(name, {}) for name in SOURCES)
    ]
    if not shared:
        raise ValueError(
            f"no solver setting was measured with z of each of {', '.join(SOURCES)}; measure one step or more of "
            "each"
        )
    return min(shared, key=lambda setting: evidence.curves["sampler"][setting][1].value)


def parts_of(
    training: MmdInterval,
    held_out: MmdInterval,
    sampler: MmdInterval,
    floor: MmdInterval,
    codec_floor: MmdInterval | None,
) -> dict[str, Contribution]:
    """How much MMD each stage adds; no entry for a codec that was not measured."""
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


def is_indistinguishable(
    evidence: Evidence, held_out: MmdInterval, sampler: MmdInterval, floor: MmdInterval
) -> bool:
    """Whether the images' MMD exceeds that between photographs by no more than the margin."""
    real = evidence.real or ZERO
    return all(
        level.value - floor.value <= math.hypot(level.reach, real.reach) for level in (held_out, sampler)
    )


def trend_of(evidence: Evidence) -> Trend | None:
    """Trend of the solver with the most settings, z of training images; None without a row of half the evaluations.

    Jumps of a flow map have none: each of them is learned, so that more of them need not be better.
    """
    curve = {setting: point for setting, point in evidence.curves["training"].items() if setting[1]}
    solvers = [solver for solver, _ in curve if solver != JUMP]
    if not solvers:
        return None
    solver = max(dict.fromkeys(solvers), key=solvers.count)
    points = sorted((nfe, level) for (name, _), (nfe, level) in curve.items() if name == solver)
    last_nfe, last = points[-1]
    earlier = [(nfe, level) for nfe, level in points if 2 * nfe <= last_nfe]
    if not earlier:
        return None
    best_nfe, best = min(earlier, key=lambda point: point[1].value)
    return Trend(best, best_nfe, last, last_nfe)


def memorises(parts: Mapping[str, Contribution], evidence: Evidence) -> bool:
    """Whether held-out z are worse by MMD, beyond the margin, and by VGL, by GAP or more."""
    gap = vgl_gap(evidence)
    return parts["prior"].is_certain and gap is not None and gap >= GAP


def is_good_on_held_out_images(evidence: Evidence) -> bool:
    """Whether the prior's VGL is known to be less than GAP above that on training images."""
    gap = vgl_gap(evidence)
    return gap is not None and gap < GAP


def vgl_gap(evidence: Evidence) -> float | None:
    """VGL on held-out images minus VGL on training images, in nats per entry; None where one is not known."""
    if evidence.vgl_training is None or evidence.vgl_held_out is None:
        return None
    return evidence.vgl_held_out - evidence.vgl_training


def is_too_narrow(trend: Trend | None, evidence: Evidence) -> bool:
    return trend is not None and (trend.gets_worse or trend.does_not_improve) and not is_wide(evidence)


def is_wide(evidence: Evidence) -> bool:
    """Whether the start is wide enough for the prior's typical deviation; False where that is not known."""
    known = [value for value in (evidence.sigma, evidence.residual) if value is not None]
    return bool(known) and start_deviation(evidence) >= min(ENOUGH * max(known), WIDEST)


def start_deviation(evidence: Evidence) -> float:
    """The start's typical deviation beyond an unscaled prior's: sqrt((k^2 - 1) sigma^2 + s^2)."""
    scaled = (evidence.prior_scale**2 - 1) * (evidence.sigma or 0.0) ** 2
    return math.sqrt(max(0.0, scaled) + evidence.prior_widening**2)


# --- text ---


def verdict_text(verdict: Verdict, evidence: Evidence) -> str:
    """Sentences: the stage that limits the quality, the measurements that show it, what to change."""
    sentences = [
        main_sentence(verdict, evidence),
        "" if verdict.is_certain else NOT_SIGNIFICANT,
        *further_remarks(verdict, evidence),
    ]
    return " ".join(filter(None, sentences))


def main_sentence(verdict: Verdict, evidence: Evidence) -> str:
    if verdict.cause == "narrow":
        return narrow_text(verdict, evidence)
    if (verdict.limits, verdict.cause) == ("flow", "memorising"):
        return flow_memorising_text(verdict, evidence)
    return {
        "nothing": nothing_text,
        "codec": codec_text,
        "flow": flow_text,
        "prior": memorising_text,
        "sampler": sampler_text,
    }[verdict.limits](verdict, evidence)


def memorising_text(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"The prior memorises: {vgl_text(evidence)}{sources_text(verdict, evidence)}. Stop the auxiliary model earlier "
        "(train.export=best, train.patience_images), regularise it (dropout, augmentation, stage.beta), "
        "or give it more pictures; then train the flow and the sampler again."
    )


def flow_memorising_text(verdict: Verdict, evidence: Evidence) -> str:
    measured = "" if evidence.flow_loss is None else f" {loss_text(evidence.flow_loss)}."
    return (
        f"The flow memorises which image belongs to which z: {sources_text(verdict, evidence)}.{measured} The prior "
        f"does not: {vgl_text(evidence).rstrip('; ')}. Train the flow again: export the weights of its lowest held-out "
        "loss (train.export=best) or end there (train.patience_images), augment its images (data.augment.probability, "
        "for the auxiliary model as well), or give it more pictures; with few, a wider start (stage.prior_widening) "
        "helps, too."
    )


def loss_text(loss: FlowLoss) -> str:
    return (
        f"The flow's loss is {loss.training:.3g} in training and {loss.held_out:.3g} on held-out images (lowest: "
        f"{loss.lowest:.3g} at {loss.lowest_at:,} images seen)"
    )


def narrow_text(verdict: Verdict, evidence: Evidence) -> str:
    trend = trend_of(evidence)
    assert trend is not None
    change = "worse" if trend.gets_worse else "no better"
    return (
        f"The prior is too narrow: with z of training images quality gets {change} with more evaluations, MMD "
        f"{trend.best} at {trend.best_nfe:g} and {trend.last} at {trend.last_nfe:g}; {width_text(evidence)}. Train "
        "the flow with a wider start: stage.prior_widening=auto, or 2.5 to 3 times the typical deviation."
    )


def sampler_text(verdict: Verdict, evidence: Evidence) -> str:
    added = part_text(verdict.parts["sampler"]).lstrip("+")
    seen = "" if evidence.sampler_images is None else f", which saw {evidence.sampler_images:,} images"
    return (
        f"The latent sampler adds {added}: MMD {mmd(verdict, evidence, 'sampler')} with its "
        f"z, {mmd(verdict, evidence, 'heldout')} with z of held-out images ({setting_text(verdict)}). Train the "
        f"sampler longer{seen}, or make it larger (model.latent_sampler); a higher stage.beta of the auxiliary "
        "model makes z easier to sample."
    )


def flow_text(verdict: Verdict, evidence: Evidence) -> str:
    widen = (
        "" if is_wide(evidence) else f" Its start may be too narrow ({width_text(evidence)}): try that first."
    )
    return (
        f"The flow: with z of training images, which all stages have seen, the MMD is already "
        f"{mmd(verdict, evidence, 'training')} ({setting_text(verdict)}); z of held-out images adds "
        f"{part_text(verdict.parts['prior'])}, the sampler {part_text(verdict.parts['sampler'])}. Train the flow "
        f"longer, or make it larger (model.velocity).{widen}"
    )


def codec_text(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"The codec: its reconstructions of the photographs are at an MMD of {evidence.codec_floor}, of the "
        f"{mmd(verdict, evidence, 'sampler')} that the whole chain reaches ({setting_text(verdict)}), and no model of "
        "its latents can come closer. Encode with another codec (codec=pixels, sd2_vae), or at a larger image size."
    )


def nothing_text(verdict: Verdict, evidence: Evidence) -> str:
    real = "0" if evidence.real is None else str(evidence.real)
    return (
        f"Nothing significant: MMD {mmd(verdict, evidence, 'sampler')} with the sampler's z "
        f"({setting_text(verdict)}), photographs among themselves {real}. Try fewer evaluations; a larger "
        "count, or more photographs, could show a difference."
    )


def further_remarks(verdict: Verdict, evidence: Evidence) -> list[str]:
    """Further findings, independent of the verdict."""
    found = []
    gap = vgl_gap(evidence)
    if verdict.cause != "memorising" and gap is not None and gap >= GAP:
        found.append(
            f"The auxiliary model has begun to memorise ({vgl_text(evidence).rstrip('; ')}): train.export=best keeps "
            "its weights from before that."
        )
    is_next = verdict.limits == "sampler" and verdict.parts["flow"].is_certain
    if is_next and is_too_narrow(trend_of(evidence), evidence):
        found.append(f"Next: the prior is too narrow ({width_text(evidence)}).")
    return found


def vgl_text(evidence: Evidence) -> str:
    if vgl_gap(evidence) is None:
        return ""
    return f"VGL {evidence.vgl_training:+.2f} on training images, {evidence.vgl_held_out:+.2f} on held-out ones; "


def width_text(evidence: Evidence) -> str:
    """The widening, and the typical sigma that it should be compared with."""
    scaled = f" after scaling by {evidence.prior_scale:g}" if evidence.prior_scale != 1 else ""
    if evidence.sigma is None:
        return f"the start is widened by s = {evidence.prior_widening:g}{scaled}"
    off = "" if evidence.residual is None else f" (held-out images are {evidence.residual:.3g} off its mean)"
    return (
        f"the start is widened by s = {evidence.prior_widening:g}{scaled}, the prior's typical sigma is "
        f"{evidence.sigma:.3g}{off}, and {ENOUGH:g} times that is the least to choose"
    )


def mmd(verdict: Verdict, evidence: Evidence, source: str) -> MmdInterval:
    assert verdict.setting is not None
    return evidence.curves[source][verdict.setting][1]


def sources_text(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"MMD {mmd(verdict, evidence, 'training')} with z of training images, {mmd(verdict, evidence, 'heldout')} "
        f"with z of held-out images ({setting_text(verdict)})"
    )


def setting_text(verdict: Verdict) -> str:
    assert verdict.setting is not None
    solver, steps = verdict.setting
    return f"{solver}, {steps} step{'s' if steps != 1 else ''}"


def part_text(part: Contribution) -> str:
    return (
        f"{part.value:.2f} +- {part.margin:.2f}"
        if abs(part.value) >= 1
        else f"{part.value:.3f} +- {part.margin:.3f}"
    )
