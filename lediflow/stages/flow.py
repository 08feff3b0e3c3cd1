"""Stage 2: train a velocity field that maps draws of the learned prior to images.

Loss, eq. 6 of arXiv:2505.20723: E[w(sigma) (v_t(psi_t, z) - (y - x))^2], psi_t = (1 - t) x + t y, t ~ U[0, 1], with
x ~ N(mu(z), sigma(z)^2) from the frozen auxiliary model. A widened prior is N(mu(z), (k sigma(z))^2 + s^2), in the
draws and in the weights, because the velocity of a narrow prior is too steep to learn. With prior=gaussian it is the
flow-matching baseline: x ~ N(0, I), no z, no weights (eq. 2), and a choice of coupling, which pairs draws and images
inside a micro-batch.
With stage.objective=reflow, flow_map or meanflow it learns from a finished run instead
(lediflow/stages/distillation.py), whose paths can begin from latents of a latent sampler, as they do in use.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.errors import UserError
from lediflow.flow.couplings import COUPLINGS
from lediflow.flow.gaussians import sample, widen
from lediflow.flow.losses import PerSample, flow_matching_loss, importance_weighted_flow_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.path import draw_times, path_velocity, point_on_path
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import VelocitySpec, has_dropout, latent_shape
from lediflow.models.velocity import FLOW_KEY, LatentSampler
from lediflow.nn.shapes import Image
from lediflow.ranges import bounded
from lediflow.stages.bins import Binned, by_sigma, by_time, some_pixels
from lediflow.stages.derivatives import Inputs, PathDerivative
from lediflow.stages.distillation import (
    FLOW_MAP,
    REFLOW,
    ObjectiveConfig,
    draw_targets,
    map_metrics,
    run_model,
    with_jumps,
)
from lediflow.stages.draws import LabelConfig, draw_latents, drawn_labels, dropout_keys, sampled_latents
from lediflow.stages.protocol import AUTO, Command, LossCurve, StageKind, StageLoss, given_width, stage_loss


@dataclass(kw_only=True)
class FlowStageConfig(LabelConfig, ObjectiveConfig):
    """Options of stage=flow."""

    name: str = "flow"
    # p in the weight min(sigma^-p, cap) of the loss, not given in the paper; 0: equal weights
    exponent: float = bounded(1.0, at_least=0)
    # largest weight, reached where sigma is smallest; not given in the paper
    cap: float = bounded(10.0, above=0, or_infinity=True)
    # scale each image's weights to mean 1, so that images with small and large sigma count equally
    normalize_weights: bool = False
    # s: the flow starts from N(mu, (k sigma)^2 + s^2); wider: easier to learn, a longer path | auto: measured
    prior_widening: int | float | str = bounded(AUTO, at_least=0, or_word=AUTO)
    # k: factor of the prior's sigma; higher: a wider start for every pixel | auto: 3 with prior_widening=auto, else 1
    prior_scale: int | float | str = bounded(AUTO, above=0, or_word=AUTO)
    coupling: str = "independent"  # independent | optimal_transport (shorter paths; prior=gaussian only)
    # reflow, flow_map: share of the teacher's paths that start from latents of the sampler that sampler= names
    sampled_share: float = bounded(0.5, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coupling not in COUPLINGS:
            raise ValueError(
                f"stage.coupling={self.coupling!r} is unknown; use one of {', '.join(COUPLINGS)}"
            )


def check_flow_options(command: Command) -> None:
    """Reject a coupling with the learned prior."""
    if command.prior == "learned":
        check_independent(command.stage.coupling)


def has_coupling(options: FlowStageConfig) -> bool:
    """Whether draws and images are paired; POT does that on the CPU."""
    return options.coupling != "independent"


def check_independent(coupling: str) -> None:
    """Reject a coupling that exchanges draws between images: a draw of the learned prior belongs to its image."""
    if coupling != "independent":
        raise UserError(
            f"stage.coupling={coupling} needs prior=gaussian: it exchanges draws between images, but a draw of the "
            "learned prior belongs to its image; use stage.coupling=independent, or prior=gaussian"
        )


class Given(NamedTuple):
    """The latents that paths start from, and the augmentation that they belong to; each may be None."""

    z: Float[Tensor, "batch latent_channels h w"] | None
    augmentation: Float[Tensor, "batch 9"] | None


class TrainingStart(NamedTuple):
    """Start of a path: the draw x, and the (widened) prior's log variance, None for the Gaussian baseline."""

    x: Image
    logvar: Image | None


class FlowStage:
    """Loss of the flow model."""

    name = "flow"

    def __init__(
        self,
        config: FlowStageConfig,
        auxiliary: AuxiliaryModel | None,
        *,
        num_classes: int = 0,
        has_dropout: bool = False,
    ) -> None:
        if auxiliary is not None:
            check_independent(config.coupling)
        self.config = config
        self.exponent, self.cap = config.exponent, config.cap
        self.couple = COUPLINGS[config.coupling]
        self.num_classes = num_classes  # also the index of the null class; 0: no labels
        self.auxiliary = auxiliary  # frozen; None: the Gaussian baseline
        self.has_dropout = has_dropout
        self.width = given_width(config)  # None until `auto` is measured
        self.teacher: nn.Module | None = None  # frozen; set where the objective has one
        self.derivative: PathDerivative | None = None  # of the trained model; set with the teacher
        self.latent_sampler: LatentSampler | None = None  # frozen; set where paths start from its latents

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        objective, given = self.config.objective, self._given(batch, noise)
        labels = self._labels(batch, noise)
        path_given = self._with_sampled(given, labels, batch, noise)
        if objective == REFLOW:
            given = path_given
        start = path_start = self._start(given, batch, noise)
        if objective == FLOW_MAP and path_given is not given:
            path_start = self._start(path_given, batch, noise)
        common = {"labels": labels, **dropout_keys(self.has_dropout, batch, noise)}
        inputs: Inputs = common | given._asdict()
        path_inputs: Inputs = common | path_given._asdict()
        path = (path_start.x, path_inputs)
        y, jumps = draw_targets(self, start.x, batch.images, inputs, noise, batch.ids, path)

        t = draw_times(self.config, noise, batch.ids)
        velocity, means = run_model(module, point_on_path(start.x, y, t), t, inputs, jumps, path_inputs)
        target = path_velocity(start.x, y)
        plain = flow_matching_loss(velocity, target)
        weighted = plain if start.logvar is None else self._weighted(velocity, target, start.logvar)
        loss = with_jumps(
            weighted, means, jumps, lambda mean, target: self._weighted(mean, target, path_start.logvar)
        )

        metrics = {"velocity_mse": plain.mean(), **map_metrics(jumps, means)}
        bins = {"loss_by_time": by_time(weighted, t)}
        if start.logvar is not None:
            metrics["prior_sigma"] = (0.5 * start.logvar).exp().mean()
            bins["velocity_mse_by_time"] = by_time(plain, t)
            bins["loss_by_sigma"] = error_by_sigma(velocity, target, start.logvar)
        return stage_loss(loss, metrics, bins)

    def _weighted(self, velocity: Image, target: Image, logvar: Image | None) -> PerSample:
        """The squared error with the weights of eq. 6; without a learned prior, the plain one."""
        if logvar is None:
            return flow_matching_loss(velocity, target)
        return importance_weighted_flow_loss(
            velocity,
            target,
            logvar,
            exponent=self.exponent,
            cap=self.cap,
            normalize=self.config.normalize_weights,
        )

    def _given(self, batch: Batch, noise: SampleNoise) -> Given:
        """The latents of the images; none for the Gaussian baseline."""
        z = draw_latents(self.auxiliary, batch, noise) if self.auxiliary is not None else None
        return Given(z, batch.augmentation)

    def _with_sampled(
        self, given: Given, labels: Int64[Tensor, " batch"] | None, batch: Batch, noise: SampleNoise
    ) -> Given:
        """The latents with a share of them drawn by the latent sampler; as they are without one.

        A sampler draws latents of images that are not augmented. It runs on all samples, so that shapes stay fixed.
        """
        if self.latent_sampler is None or given.z is None:
            return given
        spec = self.latent_sampler.spec
        drawn = sampled_latents(
            self.latent_sampler,
            tuple(given.z.shape[1:]),
            noise,
            batch.ids,
            is_flow_map=spec.is_flow_map,
            labels=labels if spec.num_classes else None,
        )
        is_drawn = noise.uniform(batch.ids, "sampled share") < self.config.sampled_share
        z = torch.where(is_drawn[:, None, None, None], drawn, given.z)
        augmentation = given.augmentation
        if augmentation is not None:
            augmentation = augmentation.masked_fill(is_drawn[:, None], 0)
        return Given(z, augmentation)

    @torch.no_grad()
    def _start(self, given: Given, batch: Batch, noise: SampleNoise) -> TrainingStart:
        y = batch.images
        gaussian = noise.normal(batch.ids, "prior", tuple(y.shape[1:]))
        if self.auxiliary is None or given.z is None:
            return TrainingStart(self.couple(gaussian, y), None)
        prior = self.auxiliary.decode(given.z, augmentation=given.augmentation)
        if self.width is None:
            raise RuntimeError(
                "stage.prior_widening=auto was not measured before the first step; set `width`"
            )
        logvar = widen(prior.logvar, self.width.added, self.width.scale)
        return TrainingStart(sample(prior.mean, logvar, gaussian), logvar)

    def _labels(self, batch: Batch, noise: SampleNoise) -> Int64[Tensor, " batch"] | None:
        """Each image's class, or the null class where dropped; None for a model without classes."""
        return drawn_labels(
            batch,
            noise,
            num_classes=self.num_classes,
            label_dropout=self.config.label_dropout,
            key=FLOW_KEY,
        )


def error_by_sigma(velocity: Image, target: Image, logvar: Image) -> Binned:
    """The unweighted squared error of single pixels, binned by the prior's sigma."""
    error = (some_pixels(velocity) - some_pixels(target)).square()
    return by_sigma(error, some_pixels(logvar))


def velocity_spec(command: Command) -> VelocitySpec:
    """The specification of the flow model; conditioned on the auxiliary model's latent unless prior=gaussian."""
    model, shape = command.model, list[int]()
    if command.prior != "gaussian":
        shape = [*latent_shape(model.auxiliary, model.image_size, model.image_size)]
    is_map = getattr(command.stage, "is_map", False)  # other stages with this model have no objectives
    return dataclasses.replace(model.velocity, latent_shape=shape, is_flow_map=is_map)


def build_flow_stage(command: Command, auxiliary: AuxiliaryModel | None) -> FlowStage:
    """The stage of a command; without an auxiliary model, the Gaussian baseline."""
    spec = command.model.velocity
    return FlowStage(command.stage, auxiliary, num_classes=spec.num_classes, has_dropout=has_dropout(spec))


FLOW = StageKind(
    options=FlowStageConfig,
    build=build_flow_stage,
    trains="velocity",
    spec=velocity_spec,
    calls=("encoder", "decoder"),
    check=check_flow_options,
    waits_for_cpu=has_coupling,
    distils=True,
    samples_latents=True,
    allows_gaussian_prior=True,
    widens_prior=True,
    place="flow",
    curve=LossCurve(
        title="Flow",
        caption="Squared error of the velocity per pixel{samples}, not weighted",
        key="velocity_mse",
        compares_methods=True,
    ),
)
