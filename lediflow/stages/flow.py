"""Stage 2: a velocity field carries draws of the learned prior to images.

Loss, eq. 6 of arXiv:2505.20723: E[w(sigma) (v_t(psi_t, z) - (y - x))^2], psi_t = (1 - t) x + t y, t ~ U[0, 1], with
x ~ N(mu(z), sigma(z)^2) from the frozen auxiliary model. With prior=gaussian it is the flow-matching baseline:
x ~ N(0, I), no z, no weights (eq. 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.batch import Batch
from lediflow.flow.gaussians import sample
from lediflow.flow.losses import flow_matching_loss, importance_weighted_flow_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.path import path_velocity, point_on_path
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.stages.latents import draw_latents
from lediflow.stages.protocol import StageLoss


@dataclass(kw_only=True)
class FlowStageConfig:
    name: str = "flow"
    exponent: float = 1.0  # p of w = min(sigma^-p, cap); open in the paper; 0 weighs all pixels alike
    cap: float = 10.0  # the largest weight, reached where the prior is surest; open in the paper


class Start(NamedTuple):
    """Where a path begins: the draw x, what the velocity is told (z), and how sure the prior was."""

    x: Float[Tensor, "batch channels height width"]
    z: Float[Tensor, "batch latent_channels h w"] | None
    logvar: Float[Tensor, "batch channels height width"] | None


class FlowStage:
    name = "flow"

    def __init__(
        self, config: FlowStageConfig, auxiliary: AuxiliaryModel | None, *, is_class_conditional: bool = False
    ) -> None:
        self.exponent, self.cap = config.exponent, config.cap
        self.is_class_conditional = is_class_conditional
        self.auxiliary = auxiliary  # frozen; None: the Gaussian baseline

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        y = batch.images
        start = self._start(batch, noise)
        t = noise.uniform(batch.ids, "time")
        labels = batch.labels if self.is_class_conditional else None
        velocity = module(point_on_path(start.x, y, t), t, z=start.z, labels=labels).float()
        target = path_velocity(start.x, y)
        plain = flow_matching_loss(velocity, target).mean()
        if start.logvar is None:
            return StageLoss(plain, {"loss": plain.detach(), "velocity_mse": plain.detach()})
        weighted = importance_weighted_flow_loss(
            velocity, target, start.logvar, exponent=self.exponent, cap=self.cap
        ).mean()
        sigma = (0.5 * start.logvar).exp().mean()
        return StageLoss(
            weighted, {"loss": weighted.detach(), "velocity_mse": plain.detach(), "prior_sigma": sigma}
        )

    @torch.no_grad()
    def _start(self, batch: Batch, noise: SampleNoise) -> Start:
        y = batch.images
        gaussian = noise.normal(batch.ids, "prior", tuple(y.shape[1:]))
        if self.auxiliary is None:
            return Start(gaussian, None, None)
        z = draw_latents(self.auxiliary, batch, noise)
        prior = self.auxiliary.decode(z)
        return Start(sample(prior.mean, prior.logvar, gaussian), z, prior.logvar)


if __name__ == "__main__":
    from lediflow.train import main

    main(["stage=flow"])
