"""The text of a verdict: what limits the quality, the measurements that show it, what to change."""

from __future__ import annotations

from dataclasses import replace

from lediflow.evaluation.stages.verdict import (
    ENOUGH,
    GAP,
    Evidence,
    Level,
    Part,
    Verdict,
    is_too_narrow,
    is_wide,
    judge,
    trend_of,
    vgl_gap,
)

NOT_SIGNIFICANT = "The difference is not significant for this number of images; measure with a larger count."


def verdict_of(evidence: Evidence) -> Verdict:
    """The rule's verdict with its text."""
    found = judge(evidence)
    sentences = [
        main_sentence(found, evidence),
        "" if found.is_certain else NOT_SIGNIFICANT,
        *further_remarks(found, evidence),
    ]
    return replace(found, text=" ".join(filter(None, sentences)))


def main_sentence(verdict: Verdict, evidence: Evidence) -> str:
    if verdict.cause == "narrow":
        return narrow(verdict, evidence)
    return {
        "nothing": nothing,
        "codec": codec,
        "flow": flow,
        "prior": memorising,
        "sampler": sampler,
    }[verdict.limits](verdict, evidence)


def memorising(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"The prior memorises: {vgl_text(evidence)}MMD {mmd(verdict, evidence, 'training')} with z of training images, "
        f"{mmd(verdict, evidence, 'heldout')} with z of held-out images ({setting_text(verdict)}). Stop the auxiliary "
        "model earlier (train.export=best, train.patience_images), regularise it (dropout, augmentation, stage.beta), "
        "or give it more pictures; then train the flow and the sampler again."
    )


def narrow(verdict: Verdict, evidence: Evidence) -> str:
    trend = trend_of(evidence)
    assert trend is not None
    change = "worse" if trend.gets_worse else "no better"
    return (
        f"The prior is too narrow: with z of training images quality gets {change} with more evaluations, MMD "
        f"{trend.best} at {trend.best_nfe:g} and {trend.last} at {trend.last_nfe:g}; {width_text(evidence)}. Train "
        "the flow with a wider start: stage.prior_widening=auto, or 2.5 to 3 times the typical deviation."
    )


def sampler(verdict: Verdict, evidence: Evidence) -> str:
    added = part_text(verdict.parts["sampler"]).lstrip("+")
    seen = "" if evidence.sampler_images is None else f", which saw {evidence.sampler_images:,} images"
    return (
        f"The latent sampler adds {added}: MMD {mmd(verdict, evidence, 'sampler')} with its "
        f"z, {mmd(verdict, evidence, 'heldout')} with z of held-out images ({setting_text(verdict)}). Train the "
        f"sampler longer{seen}, or make it larger (model.latent_sampler); a higher stage.beta of the auxiliary "
        "model makes z easier to sample."
    )


def flow(verdict: Verdict, evidence: Evidence) -> str:
    widen = (
        "" if is_wide(evidence) else f" Its start may be too narrow ({width_text(evidence)}): try that first."
    )
    return (
        f"The flow: with z of training images, which all stages have seen, the MMD is already "
        f"{mmd(verdict, evidence, 'training')} ({setting_text(verdict)}); z of held-out images adds "
        f"{part_text(verdict.parts['prior'])}, the sampler {part_text(verdict.parts['sampler'])}. Train the flow "
        f"longer, or make it larger (model.velocity).{widen}"
    )


def codec(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"The codec: its reconstructions of the photographs are at an MMD of {evidence.codec_floor}, of the "
        f"{mmd(verdict, evidence, 'sampler')} that the whole chain reaches ({setting_text(verdict)}), and no model of "
        "its latents can come closer. Encode with another codec (codec=pixels, sd2_vae), or at a larger image size."
    )


def nothing(verdict: Verdict, evidence: Evidence) -> str:
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


def mmd(verdict: Verdict, evidence: Evidence, source: str) -> Level:
    assert verdict.setting is not None
    return evidence.curves[source][verdict.setting][1]


def setting_text(verdict: Verdict) -> str:
    assert verdict.setting is not None
    solver, steps = verdict.setting
    return f"{solver}, {steps} step{'s' if steps != 1 else ''}"


def part_text(part: Part) -> str:
    return (
        f"{part.value:.2f} +- {part.margin:.2f}"
        if abs(part.value) >= 1
        else f"{part.value:.3f} +- {part.margin:.3f}"
    )
