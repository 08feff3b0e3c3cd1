"""The record of a flow's width and its origin, as prior_width.json and export/config.json keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lediflow.flow.widening import Width
from lediflow.stages.flow import AUTO
from lediflow.training.identity import SCALE, WIDTH

ABOUT = "prior_width"  # key in an export, next to the number itself
GIVEN = {"rule": "given"}


@dataclass(frozen=True, kw_only=True)
class AutomaticWidth:
    """A measured width and its measurements. Deviations are in units of what the models see."""

    rule: str = AUTO
    prior_widening: float  # factor x the larger of sigma and residual, rounded
    prior_scale: float = 1.0  # what sigma is multiplied by, as asked
    factor: float
    sigma: float  # typical sigma that the prior predicts
    residual: float  # typical deviation of the images from the prior's mean
    images: int
    split: str  # heldout, or train where nothing is held out
    parent: str  # SHA-256 of the auxiliary model's weights
    data: str  # fingerprint of the shards

    @property
    def width(self) -> Width:
        return Width(self.prior_scale, self.prior_widening)


def recorded_width(facts: Mapping[str, Any]) -> Width:
    """The width in an export's facts; `Width()` for exports from before the options, and for other stages."""
    return Width(float(facts.get(SCALE) or 1.0), float(facts.get(WIDTH) or 0.0))


def describe_start(width: Width) -> str:
    """Words that follow `the start is`."""
    if width == Width():
        return "not widened"
    return f"widened by {width.added:g}" + (f" after scaling by {width.scale:g}" if width.scale != 1 else "")


def describe_width(facts: Mapping[str, Any]) -> str | None:
    """The width in an export's facts, as `0.19 (auto: 2.75 x ...)`; None unless it is a flow from a learned prior."""
    if facts.get("stage") != "flow" or facts.get("prior") != "learned":
        return None
    about = facts.get(ABOUT) or GIVEN
    scale, added = recorded_width(facts)
    scaled = f", sigma times {scale:g}" if scale != 1 else ""
    return f"{added:g}{scaled} ({describe_origin(about)})"


def describe_origin(about: Mapping[str, Any]) -> str:
    """Whether the width was given or measured, and from which measurements."""
    if about.get("rule") != AUTO:
        return "given"
    of = "held-out" if about["split"] == "heldout" else "training"
    return (
        f"auto: {about['factor']:g} x the larger of the prior's typical sigma {about['sigma']:.3g} and residual "
        f"{about['residual']:.3g} on {about['images']:,} {of} images"
    )
