"""Stage 1: train encoder and decoder, which define a prior close to the data for each image.

Loss, eq. 5 of arXiv:2505.20723: E[VGL] + beta KL(q(z|y) || N(0, I)), computed per pixel: the variance-guided loss (VGL)
is a mean over pixels and channels, and the KL a sum over latents divided by the same count, so that beta = 1 is the
evidence lower bound for any image size. Two options prevent posterior collapse: beta can grow from 0 (a sample's beta
depends on its position in the run, so it is the same on any rank and after any restart), and the first `free_bits`
nats of each latent entry can be free. With nll_beta > 0 the first term is beta-NLL (arXiv:2203.09168); this beta is
unrelated to that of eq. 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.gaussians import share_at_floor
from lediflow.flow.losses import (
    beta_nll_loss,
    gaussian_kl_by_feature,
    guided_by_variance,
    kl_with_free_bits,
    variance_guided_loss,
)
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.models.specs import has_dropout, latent_shape
from lediflow.nn.shapes import Image
from lediflow.ranges import bounded, check_ranges
from lediflow.stages.bins import Binned, by_channel, by_sigma, some_pixels
from lediflow.stages.draws import dropout_keys
from lediflow.stages.protocol import Command, LossCurve, LossWarmup, StageKind, StageLoss, stage_loss
from lediflow.tracking.metrics import BY_SIGMA, LOSS, lower


@dataclass(kw_only=True)
class AuxiliaryStageConfig:
    """Options of stage=auxiliary."""

    name: str = "auxiliary"
    # weight of the KL, not given in the paper; lower: a sharper prior, and latents that are harder to sample
    beta: float = bounded(1.0, at_least=0)
    # images over which beta grows linearly from 0; longer: more latent entries are used, and the KL falls later
    beta_warmup_images: int = bounded(0, at_least=0)
    # nats of each latent entry's KL without a penalty; higher: more entries are used, and z is harder to sample
    free_bits: float = bounded(0.0, at_least=0)
    # pixels are weighted by sigma^(2 nll_beta); larger values speed up learning of the mean where sigma is large
    nll_beta: float = bounded(0.0, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_ranges(self, "stage.")


class AuxiliaryStage:
    """Loss of encoder and decoder."""

    name = "auxiliary"

    def __init__(
        self,
        config: AuxiliaryStageConfig,
        *,
        latent_shape: tuple[int, int, int],
        logvar_floor: float,
        has_dropout: bool = False,
    ) -> None:
        self.config, self.nll_beta = config, config.nll_beta
        self.latent_shape = latent_shape
        self.logvar_floor = logvar_floor
        self.has_dropout = has_dropout

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        y = batch.images
        gaussian = noise.normal(batch.ids, "posterior", self.latent_shape)
        keys = dropout_keys(self.has_dropout, batch, noise)
        posterior, _, prior = module(y, gaussian, augmentation=batch.augmentation, **keys)
        mean, logvar = prior.mean.float(), prior.logvar.float()
        vgl = variance_guided_loss(y, mean, logvar)
        kl = gaussian_kl_by_feature(posterior.mean.float(), posterior.logvar.float())
        fit = beta_nll_loss(y, mean, logvar, beta=self.nll_beta) if self.nll_beta else vgl
        beta = self._beta(batch, module)
        per_sample = fit + beta * kl_with_free_bits(kl, self.config.free_bits) / y[0].numel()
        metrics = {
            "vgl": vgl.mean(),
            "kl_nats": kl.flatten(1).sum(1).mean(),
            "prior_mse": (y - mean).square().mean(),
            "prior_sigma": (0.5 * logvar).exp().mean(),
            "share_at_floor": share_at_floor(logvar, self.logvar_floor).mean(),
        }
        if isinstance(beta, Tensor):
            metrics["beta"] = beta.mean()
        bins = {
            "loss_by_sigma": vgl_by_sigma(y, Prior(mean, logvar)),
            "kl_nats_by_channel": by_channel(kl),
        }
        return stage_loss(per_sample, metrics, bins)

    def _beta(self, batch: Batch, module: nn.Module) -> float | Float[Tensor, " batch"]:
        """Weight of each sample's KL. The warm-up applies in training, not to held-out losses."""
        beta, warmup = self.config.beta, self.config.beta_warmup_images
        if not warmup:
            return beta
        share = (batch.ids.double() / warmup).clamp(max=1).float()
        # check all modules: DeepSpeed's engine can be in training mode while its model is in evaluation mode
        is_training = all(part.training for part in module.modules())
        return beta * (share if is_training else torch.ones_like(share))


def vgl_by_sigma(y: Image, prior: Prior) -> Binned:
    """The variance-guided loss of single pixels, binned by their predicted sigma."""
    mean, logvar = some_pixels(prior.mean), some_pixels(prior.logvar)
    return by_sigma(guided_by_variance(some_pixels(y), mean, logvar, factor=0.5, with_log_2pi=False), logvar)


def build_auxiliary_stage(command: Command, auxiliary: AuxiliaryModel | None) -> AuxiliaryStage:
    """The stage of a command; it has no parent."""
    spec, size = command.model.auxiliary, command.model.image_size
    return AuxiliaryStage(
        command.stage,
        latent_shape=latent_shape(spec, size, size),
        logvar_floor=spec.logvar_floor,
        has_dropout=has_dropout(spec),
    )


AUXILIARY = StageKind(
    options=AuxiliaryStageConfig,
    build=build_auxiliary_stage,
    trains="auxiliary",
    has_parent=False,
    warmup=LossWarmup(option="beta_warmup_images", grows="beta"),
    place="auxiliary",
    curve=LossCurve(
        title="Auxiliary model",
        caption="Negative log-likelihood of pixels plus KL divergence of latents, per pixel and channel, in nats",
    ),
    values={
        "loss": lower(LOSS, "loss", "nats per pixel and channel"),
        "loss_by_sigma/*": lower(
            BY_SIGMA, "variance-guided loss, sigma bin {}", "nats per pixel and channel"
        ),
    },
)
