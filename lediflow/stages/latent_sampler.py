"""Stage 3: train a small flow from Gaussian noise w to the encoder's latents z, for generating new images.

Loss: plain flow matching, eq. 2 of arXiv:2505.20723, with w ~ N(0, I) at t = 0 and z ~ q(z|y) at t = 1.
The encoder costs more than the sampler. If images are used several times, each is encoded once
(lediflow/data/streams/stream.py), which makes training several times faster.
With stage.objective=reflow, flow_map or meanflow it learns from a finished run instead
(lediflow/stages/distillation.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import nn

from lediflow.data.streams.batch import Batch
from lediflow.flow.losses import flow_matching_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.path import draw_times, path_velocity, point_on_path
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import LatentSamplerSpec, has_dropout
from lediflow.models.velocity import SAMPLER_KEY
from lediflow.stages.bins import by_time
from lediflow.stages.derivatives import Inputs, PathDerivative
from lediflow.stages.distillation import ObjectiveConfig, draw_targets, map_metrics, run_model, with_jumps
from lediflow.stages.draws import LabelConfig, draw_latents, drawn_labels, dropout_keys
from lediflow.stages.protocol import Command, LossCurve, StageKind, StageLoss, stage_loss


@dataclass(kw_only=True)
class LatentSamplerStageConfig(LabelConfig, ObjectiveConfig):
    """Options of stage=latent_sampler."""

    name: str = "latent_sampler"
    encode_once: bool | None = None  # keep every image's q(z|y) in host memory; null: if that saves work


class LatentSamplerStage:
    """Loss of the latent sampler."""

    name = "latent_sampler"

    def __init__(
        self,
        config: LatentSamplerStageConfig,
        auxiliary: AuxiliaryModel,
        *,
        num_classes: int = 0,
        has_dropout: bool = False,
    ) -> None:
        self.config = config
        self.num_classes = num_classes  # also the index of the null class; 0: no labels
        self.auxiliary = auxiliary  # frozen
        self.has_dropout = has_dropout
        self.teacher: nn.Module | None = None  # frozen; set where the objective has one
        self.derivative: PathDerivative | None = None  # of the trained model; set with the teacher

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        z = draw_latents(self.auxiliary, batch, noise)
        w = noise.normal(batch.ids, "latent noise", tuple(z.shape[1:]))
        metrics = {"latent_mean_square": z.square().mean()}  # 1 if the latents match their target N(0, I)
        labels = drawn_labels(
            batch,
            noise,
            num_classes=self.num_classes,
            label_dropout=self.config.label_dropout,
            key=SAMPLER_KEY,
        )
        inputs: Inputs = {
            "augmentation": batch.augmentation,
            **({} if labels is None else {"labels": labels}),
            **dropout_keys(self.has_dropout, batch, noise),
        }
        z, jumps = draw_targets(self, w, z, inputs, noise, batch.ids)

        t = draw_times(self.config, noise, batch.ids)
        velocity, means = run_model(module, point_on_path(w, z, t), t, inputs, jumps, inputs)
        error = flow_matching_loss(velocity, path_velocity(w, z))
        bins = {"loss_by_time": by_time(error, t)}
        if jumps:
            metrics |= {"velocity_mse": error.mean()} | map_metrics(jumps, means)
        return stage_loss(with_jumps(error, means, jumps, flow_matching_loss), metrics, bins)


def latent_sampler_spec(command: Command) -> LatentSamplerSpec:
    """The specification of the latent sampler."""
    return dataclasses.replace(command.model.latent_sampler, is_flow_map=command.stage.is_map)


def build_latent_sampler_stage(command: Command, auxiliary: AuxiliaryModel | None) -> LatentSamplerStage:
    """The stage of a command."""
    assert auxiliary is not None  # prior=gaussian is refused for this stage, and a missing parent, too
    spec = command.model.latent_sampler
    return LatentSamplerStage(
        command.stage, auxiliary, num_classes=spec.num_classes, has_dropout=has_dropout(spec)
    )


LATENT_SAMPLER = StageKind(
    options=LatentSamplerStageConfig,
    build=build_latent_sampler_stage,
    trains="latent_sampler",
    spec=latent_sampler_spec,
    distils=True,
    calls=("encoder",),
    later_class_options=("label_dropout",),
    on_latents=True,
    can_encode_once=True,
    place="latent_sampler",
    curve=LossCurve(title="Latent sampler", caption="Squared error of the velocity in latent space"),
)
