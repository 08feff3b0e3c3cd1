"""What the training loop asks of a stage: a scalar loss to go down, and numbers to look at."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.stages.bins import Binned


class StageLoss(NamedTuple):
    """`loss` is the mean over the micro-batch and carries gradients; the rest is detached, and stays on the device.

    `metrics` are means over the micro-batch too, and each of `bins` tells apart what a mean hides: averages over
    any batches and ranks follow from them, weighted by the numbers of samples.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]
    per_sample: Float[Tensor, " batch"]  # whose mean is `loss`
    bins: dict[str, Binned]


def stage_loss(
    per_sample: Float[Tensor, " batch"], metrics: dict[str, Float[Tensor, ""]], bins: dict[str, Binned]
) -> StageLoss:
    """The loss of a batch, which is its metric too."""
    loss = per_sample.mean()
    detached = {name: value.detach() for name, value in {"loss": loss, **metrics}.items()}
    return StageLoss(loss, detached, per_sample.detach(), bins)


class Stage(Protocol):
    """Every random draw of the k-th sample is a function of (seed, k): `noise` is asked with the batch's ids."""

    name: str

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss: ...
