"""Where a flow's width is from, as prior_width.json and export/config.json keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lediflow.stages.flow import AUTO
from lediflow.training.identity import WIDTH

ABOUT = "prior_width"  # in an export, beside the number itself
GIVEN = {"rule": "given"}


@dataclass(frozen=True, kw_only=True)
class AutomaticWidth:
    """A width that was measured, and what it rests on. Deviations are in units of what the models see."""

    rule: str = AUTO
    prior_widening: float  # factor x the larger of sigma and residual, rounded
    factor: float
    sigma: float  # typical, as the prior says
    residual: float  # typical, as the images have it
    images: int
    split: str  # heldout, or train where nothing is held out
    parent: str  # SHA-256 of the auxiliary model's weights
    data: str  # fingerprint of the shards


def told_width(facts: Mapping[str, Any]) -> str | None:
    """Of an export's facts: `0.19 (auto: 2.75 x ...)`; None for what is no flow from a learned prior."""
    if facts.get("stage") != "flow" or facts.get("prior") != "learned":
        return None
    about = facts.get(ABOUT) or GIVEN
    return f"{facts.get(WIDTH, 0.0):g} ({described(about)})"


def described(about: Mapping[str, Any]) -> str:
    """Where a width is from, in words."""
    if about.get("rule") != AUTO:
        return "given"
    of = "held-out" if about["split"] == "heldout" else "training"
    return (
        f"auto: {about['factor']:g} x the larger of the prior's typical sigma {about['sigma']:.3g} and residual "
        f"{about['residual']:.3g} on {about['images']:,} {of} images"
    )
