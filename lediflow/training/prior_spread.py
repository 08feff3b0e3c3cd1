"""How far images lie from their prior's mean: what `stage.prior_widening=auto` goes by.

At most IMAGES held-out ones, spread evenly over the set, seen as the flow sees them in training (z is a draw of the
encoder's posterior, the model computes in the run's precision), each with the same draw every time. A piece of them is
made by one rank and the others add zero, so that the sums have the same bits on any number of ranks.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import load_samples, ready
from lediflow.data.streams.quarantine import Quarantine
from lediflow.data.streams.split import some_of
from lediflow.engine.protocol import Engine
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Spread, log_spreads, typical_spread
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.stages.latents import draw_latents
from lediflow.training.validation import CORRUPT_SHARE, NOISE_SEED, looking_on

IMAGES = 512
PIECE = 16  # images at once, whatever the micro-batch

Samples = Int64[np.ndarray, " samples"]


def measure_spread(
    auxiliary: AuxiliaryModel, reader: ShardReader, samples: Samples, engine: Engine
) -> Spread:
    """Of some of the samples. Every rank must call it; a corrupt sample is replaced by the next one."""
    chosen, noise = some_of(samples, IMAGES), SampleNoise(NOISE_SEED)
    quarantine = Quarantine(reader, samples, CORRUPT_SHARE)
    logs = torch.zeros(len(chosen), 2, dtype=torch.float64)
    step = PIECE * engine.ranks.world_size
    with looking_on(auxiliary):
        for first in range(PIECE * engine.ranks.rank, len(chosen), step):
            piece = slice(first, first + PIECE)
            stored = quarantine.loaded(chosen[piece], lambda numbers: load_samples(reader, numbers, numbers))
            batch = ready(stored, reader, noise, engine.device)
            prior = auxiliary.decode(draw_latents(auxiliary, batch, noise))
            logs[piece] = log_spreads(batch.images, prior.mean, prior.logvar).cpu()
    return typical_spread(engine.sum(logs.flatten()).view_as(logs))
