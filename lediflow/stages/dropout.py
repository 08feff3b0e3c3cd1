"""Whose masks a model with dropout uses: keys of places in the run, so every repeat of a picture has its own."""

from __future__ import annotations

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.nn.shapes import SampleKeys


def dropout_keys(has_dropout: bool, batch: Batch, noise: SampleNoise) -> dict[str, SampleKeys]:
    """What a model with dropout is called with besides its inputs; nothing for a model without."""
    return {"dropout": noise.words(batch.ids, "dropout")} if has_dropout else {}
