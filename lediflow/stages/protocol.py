"""What the training loop asks of a stage: a scalar loss to go down, and numbers to look at."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise


class StageLoss(NamedTuple):
    """`loss` is the mean over the micro-batch; `metrics` are detached scalars, averaged over ranks and logged."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]


class Stage(Protocol):
    """Every random draw of the k-th sample is a function of (seed, k): `noise` is asked with the batch's ids."""

    name: str

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss: ...
