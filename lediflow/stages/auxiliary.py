"""Stage 1: encoder and decoder learn a per-image prior close to the data.

Loss, eq. 5 of arXiv:2505.20723: E[VGL] + beta KL(q(z|y) || N(0, I)). We write it per pixel: the variance-guided loss
is a mean over pixels and channels, the KL a sum over latents divided by the same count, so that beta = 1 is the
true evidence lower bound whatever the image size. With nll_beta > 0 the first term is beta-NLL instead
(arXiv:2203.09168), another beta than eq. 5's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.gaussians import share_at_floor
from lediflow.flow.losses import beta_nll_loss, gaussian_kl, guided_by_variance, variance_guided_loss
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import Prior
from lediflow.nn.shapes import Image
from lediflow.ranges import bounded, check_ranges
from lediflow.stages.bins import Binned, by_sigma, some_pixels
from lediflow.stages.dropout import dropout_keys
from lediflow.stages.protocol import StageLoss, stage_loss


@dataclass(kw_only=True)
class AuxiliaryStageConfig:
    name: str = "auxiliary"
    beta: float = bounded(
        1.0, at_least=0
    )  # open in the paper; lower: sharper prior, a latent space that is harder to sample
    nll_beta: float = bounded(
        0.0, at_least=0, at_most=1
    )  # weighs pixels by sigma^(2 nll_beta): higher, and unsure pixels' means learn faster

    def __post_init__(self) -> None:
        check_ranges(self, "stage.")


class AuxiliaryStage:
    name = "auxiliary"

    def __init__(
        self,
        config: AuxiliaryStageConfig,
        *,
        latent_shape: tuple[int, int, int],
        logvar_floor: float,
        has_dropout: bool = False,
    ) -> None:
        self.beta, self.nll_beta = config.beta, config.nll_beta
        self.latent_shape = latent_shape
        self.logvar_floor = logvar_floor
        self.has_dropout = has_dropout

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        y = batch.images
        gaussian = noise.normal(batch.ids, "posterior", self.latent_shape)
        posterior, _, prior = module(y, gaussian, **dropout_keys(self.has_dropout, batch, noise))
        mean, logvar = prior.mean.float(), prior.logvar.float()
        vgl = variance_guided_loss(y, mean, logvar)
        kl = gaussian_kl(posterior.mean.float().flatten(1), posterior.logvar.float().flatten(1))
        fit = beta_nll_loss(y, mean, logvar, beta=self.nll_beta) if self.nll_beta else vgl
        per_sample = fit + self.beta * kl / y[0].numel()
        metrics = {
            "vgl": vgl.mean(),
            "kl_nats": kl.mean(),
            "prior_mse": (y - mean).square().mean(),
            "prior_sigma": (0.5 * logvar).exp().mean(),
            "share_at_floor": share_at_floor(logvar, self.logvar_floor).mean(),
        }
        return stage_loss(per_sample, metrics, {"loss_by_sigma": vgl_by_sigma(y, Prior(mean, logvar))})


def vgl_by_sigma(y: Image, prior: Prior) -> Binned:
    """The variance-guided loss of single pixels by the sigma that was predicted for them."""
    mean, logvar = some_pixels(prior.mean), some_pixels(prior.logvar)
    return by_sigma(guided_by_variance(some_pixels(y), mean, logvar, factor=0.5, with_log_2pi=False), logvar)


if __name__ == "__main__":
    from lediflow.train import main

    main(["stage=auxiliary"])
