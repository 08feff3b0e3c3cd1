"""The width of a flow's prior: the measurement behind `stage.prior_widening=auto`, and the record of a width's origin.

Record. prior_width.json and export/config.json keep the width and, where it was measured, the measurements.

Measurement. At most IMAGES held-out images, spread evenly over the set, are measured as the flow sees them in training:
z is a draw of the encoder's posterior, the same draw each time, and the model computes in the run's precision. One rank
computes each piece and the others add zero, so that the sums have the same bits on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import Quarantine, load_samples, ready
from lediflow.data.streams.order import spread_over
from lediflow.engine.protocol import Engine
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import WIDTH, Spread, Width, log_spreads, recorded_width, typical_spread
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.stages import place_of
from lediflow.stages.draws import draw_latents
from lediflow.stages.protocol import AUTO
from lediflow.training.validation import CORRUPT_SHARE, NOISE_SEED, inference

ABOUT = "prior_width"  # key in an export, next to the number itself
GIVEN = {"rule": "given"}
OF_TEACHER = {"rule": "teacher"}  # that of the run that a flow map or reflow learns from
IMAGES = 512  # images that are measured at most
PIECE = 16  # images at once, independent of the micro-batch

Samples = Int64[np.ndarray, " samples"]


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


def describe_start(width: Width) -> str:
    """The width for a message, such as `widened by 0.19`, in which it completes `the start is ...`."""
    if width == Width():
        return "not widened"
    return f"widened by {width.added:g}" + (f" after scaling by {width.scale:g}" if width.scale != 1 else "")


def describe_width(facts: Mapping[str, Any]) -> str | None:
    """The width in an export's facts, as `0.19 (auto: 2.75 x ...)`.

    None unless it is a flow from a learned prior whose width is known: it is null until it is measured.
    """
    if place_of(str(facts.get("stage"))) != "flow" or facts.get("prior") != "learned":
        return None
    if facts.get(WIDTH, 0.0) is None:
        return None
    about = facts.get(ABOUT) or GIVEN
    scale, added = recorded_width(facts)
    scaled = f", sigma times {scale:g}" if scale != 1 else ""
    return f"{added:g}{scaled} ({describe_origin(about)})"


def describe_origin(about: Mapping[str, Any]) -> str:
    """Whether the width was given, a teacher's, or measured, and from which measurements."""
    if about.get("rule") != AUTO:
        return "its teacher's" if about.get("rule") == OF_TEACHER["rule"] else "given"
    of = "held-out" if about["split"] == "heldout" else "training"
    return (
        f"auto: {about['factor']:g} x the larger of the prior's typical sigma {about['sigma']:.3g} and residual "
        f"{about['residual']:.3g} on {about['images']:,} {of} images"
    )


def measure_spread(
    auxiliary: AuxiliaryModel, reader: ShardReader, samples: Samples, engine: Engine, most: int = IMAGES
) -> Spread:
    """The typical deviations of images from their prior's mean, over at most `most` of the samples.

    Every rank must call it; a corrupt sample is replaced by the next one.
    """
    chosen, noise = spread_over(samples, most), SampleNoise(NOISE_SEED)
    quarantine = Quarantine(reader, samples, CORRUPT_SHARE)
    logs = torch.zeros(len(chosen), 2, dtype=torch.float64)
    step = PIECE * engine.ranks.world_size
    with inference(auxiliary):
        for first in range(PIECE * engine.ranks.rank, len(chosen), step):
            piece = slice(first, first + PIECE)
            stored = quarantine.loaded(chosen[piece], lambda numbers: load_samples(reader, numbers, numbers))
            batch = ready(stored, reader, noise, engine.device)
            prior = auxiliary.decode(draw_latents(auxiliary, batch, noise))
            logs[piece] = log_spreads(batch.images, prior.mean, prior.logvar).cpu()
    return typical_spread(engine.group.sum(logs.flatten()).view_as(logs))
