"""Interface of a stage for the training loop: a scalar loss and metrics for each batch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.stages.bins import Binned


class StageLoss(NamedTuple):
    """`loss` is the mean over the micro-batch and has gradients; all other tensors are detached and on the device.

    `metrics` are means over the micro-batch. `bins` are sums and counts, from which averages over batches and ranks
    can be computed.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]
    per_sample: Float[Tensor, " batch"]  # loss of each sample, with mean `loss`
    bins: dict[str, Binned]


def stage_loss(
    per_sample: Float[Tensor, " batch"], metrics: dict[str, Float[Tensor, ""]], bins: dict[str, Binned]
) -> StageLoss:
    """StageLoss from per-sample losses; their mean is also added to the metrics."""
    loss = per_sample.mean()
    detached = {name: value.detach() for name, value in {"loss": loss, **metrics}.items()}
    return StageLoss(loss, detached, per_sample.detach(), bins)


class Stage(Protocol):
    """A training stage. Random draws must come from `noise` with the batch's ids, as functions of (seed, id)."""

    name: str

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss: ...
