"""Keys of dropout masks: one per position in the run, so that an image has different masks in each epoch."""

from __future__ import annotations

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.nn.shapes import SampleKeys


def dropout_keys(has_dropout: bool, batch: Batch, noise: SampleNoise) -> dict[str, SampleKeys]:
    """Keyword arguments with the sample keys for a model with dropout; an empty dict for a model without."""
    return {"dropout": noise.words(batch.ids, "dropout")} if has_dropout else {}
