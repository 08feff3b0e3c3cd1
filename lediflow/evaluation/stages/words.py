"""A verdict in words: what limits the quality, the numbers that this rests on, what to change."""

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
    rise_of,
    vgl_gap,
)

LESS_SURE = "Not beyond the intervals of so many images: a larger count says more."


def verdict_of(evidence: Evidence) -> Verdict:
    """The rule's verdict with its text."""
    found = judge(evidence)
    sentences = [said(found, evidence), "" if found.is_certain else LESS_SURE, *others(found, evidence)]
    return replace(found, text=" ".join(filter(None, sentences)))


def said(verdict: Verdict, evidence: Evidence) -> str:
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
        f"The prior memorises: {vgl(evidence)}MMD {at(verdict, evidence, 'training')} with z of training images, "
        f"{at(verdict, evidence, 'heldout')} with z of held-out images ({where(verdict)}). Stop the auxiliary model "
        "earlier (train.export=best, train.patience_images), regularise it (dropout, augmentation, stage.beta), or "
        "give it more pictures; then train the flow and the sampler again."
    )


def narrow(verdict: Verdict, evidence: Evidence) -> str:
    rise = rise_of(evidence)
    assert rise is not None
    change = "worse" if rise.rises else "no better"
    return (
        f"The prior is too narrow: with z of training images quality gets {change} with more evaluations, MMD "
        f"{rise.best} at {rise.best_nfe:g} and {rise.last} at {rise.last_nfe:g}; {width(evidence)}. Train the flow "
        "with a wider start: stage.prior_widening=auto, or 2.5 to 3 times the typical deviation."
    )


def sampler(verdict: Verdict, evidence: Evidence) -> str:
    added = amount(verdict.parts["sampler"]).lstrip("+")
    seen = "" if evidence.sampler_images is None else f", which saw {evidence.sampler_images:,} images"
    return (
        f"The latent sampler adds {added}: MMD {at(verdict, evidence, 'sampler')} with its "
        f"z, {at(verdict, evidence, 'heldout')} with z of held-out images ({where(verdict)}). Train the sampler "
        f"longer{seen}, or make it larger (model.latent_sampler); a higher stage.beta of the auxiliary model makes z "
        "easier to sample."
    )


def flow(verdict: Verdict, evidence: Evidence) -> str:
    widen = "" if is_wide(evidence) else f" Its start may be too narrow ({width(evidence)}): try that first."
    return (
        f"The flow: with z of training images, which all stages have seen, the MMD is already "
        f"{at(verdict, evidence, 'training')} ({where(verdict)}); held-out images instead change it by "
        f"{amount(verdict.parts['prior'])}, the sampler by {amount(verdict.parts['sampler'])} more. Train the flow "
        f"longer, or make it larger (model.velocity).{widen}"
    )


def codec(verdict: Verdict, evidence: Evidence) -> str:
    return (
        f"The codec: its reconstructions of the photographs are at an MMD of {evidence.codec_floor}, of the "
        f"{at(verdict, evidence, 'sampler')} that the whole chain reaches ({where(verdict)}), and no model of its "
        "latents can come closer. Encode with another codec (codec=pixels, sd2_vae), or at a larger image size."
    )


def nothing(verdict: Verdict, evidence: Evidence) -> str:
    real = "0" if evidence.real is None else str(evidence.real)
    return (
        f"Nothing that these images show: MMD {at(verdict, evidence, 'sampler')} with the sampler's z "
        f"({where(verdict)}), photographs among themselves {real}. Fewer evaluations may do as well; a larger count, "
        "or more photographs, could tell more."
    )


def others(verdict: Verdict, evidence: Evidence) -> list[str]:
    """What else is worth a word, whatever the verdict."""
    found = []
    gap = vgl_gap(evidence)
    if verdict.cause != "memorising" and gap is not None and gap >= GAP:
        found.append(
            f"Besides, the auxiliary model has begun to memorise ({vgl(evidence).rstrip('; ')}): train.export=best "
            "keeps its weights from before that."
        )
    is_next = verdict.limits == "sampler" and verdict.parts["flow"].is_certain
    if is_next and is_too_narrow(rise_of(evidence), evidence):
        found.append(f"Next: the prior is too narrow ({width(evidence)}).")
    return found


def vgl(evidence: Evidence) -> str:
    if vgl_gap(evidence) is None:
        return ""
    return f"VGL {evidence.vgl_training:+.2f} on training images, {evidence.vgl_held_out:+.2f} on held-out ones; "


def width(evidence: Evidence) -> str:
    """The widening beside the typical sigma."""
    scaled = f" after scaling by {evidence.prior_scale:g}" if evidence.prior_scale != 1 else ""
    if evidence.sigma is None:
        return f"the start is widened by s = {evidence.prior_widening:g}{scaled}"
    off = "" if evidence.residual is None else f" (held-out images are {evidence.residual:.3g} off its mean)"
    return (
        f"the start is widened by s = {evidence.prior_widening:g}{scaled}, the prior's typical sigma is "
        f"{evidence.sigma:.3g}{off}, and {ENOUGH:g} times that is the least to choose"
    )


def at(verdict: Verdict, evidence: Evidence, source: str) -> Level:
    assert verdict.setting is not None
    return evidence.curves[source][verdict.setting][1]


def where(verdict: Verdict) -> str:
    assert verdict.setting is not None
    solver, steps = verdict.setting
    return f"{solver}, {steps} step{'s' if steps != 1 else ''}"


def amount(part: Part) -> str:
    return (
        f"{part.value:.2f} +- {part.margin:.2f}"
        if abs(part.value) >= 1
        else f"{part.value:.3f} +- {part.margin:.3f}"
    )
