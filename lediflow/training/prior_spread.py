"""The typical deviations of images from their prior's mean, which `stage.prior_widening=auto` uses.

At most IMAGES held-out images, spread evenly over the set, are measured as the flow sees them in training: z is a draw
of the encoder's posterior, the same draw each time, and the model computes in the run's precision. One rank computes
each piece and the others add zero, so that the sums have the same bits on any number of ranks.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import Quarantine, load_samples, ready
from lediflow.data.streams.order import spread_over
from lediflow.engine.protocol import Engine
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Spread, log_spreads, typical_spread
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.stages.latents import draw_latents
from lediflow.training.validation import CORRUPT_SHARE, NOISE_SEED, inference

IMAGES = 512
PIECE = 16  # images at once, whatever the micro-batch

Samples = Int64[np.ndarray, " samples"]


def measure_spread(
    auxiliary: AuxiliaryModel, reader: ShardReader, samples: Samples, engine: Engine
) -> Spread:
    """Measure up to IMAGES of the samples. Every rank must call it; a corrupt sample is replaced by the next one."""
    chosen, noise = spread_over(samples, IMAGES), SampleNoise(NOISE_SEED)
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
