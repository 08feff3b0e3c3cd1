"""Training for joint_decoder.py: the flow's loss with a trainable decoder, regularisers, and the optimizer step."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.batch import Batch
from lediflow.engine.ema import HALF_LIFE, Averages
from lediflow.engine.owned_state import adamw, skip_unless_finite
from lediflow.flow.gaussians import sample, widen
from lediflow.flow.losses import mean_over_pixels, variance_guided_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.models.parameters import parameter_groups
from lediflow.stages.flow import FlowStage, FlowStageConfig, Given, TrainingStart
from lediflow.stages.protocol import StageLoss

FROZEN, JOINT, JOINT_NLL = "frozen", "joint", "joint_nll"


@dataclass(frozen=True)
class Setting:
    """How the decoder is trained, and the weight of its regulariser."""

    name: str
    kind: str
    weight: float = 0.0

    @classmethod
    def read(cls, name: str) -> Setting:
        """`frozen`, `joint:0.1` or `joint_nll:0.1`; ArgumentTypeError for anything else."""
        kind, _, weight = name.partition(":")
        try:
            if kind == FROZEN and not weight:
                return cls(name, kind)
            if kind in (JOINT, JOINT_NLL) and float(weight) >= 0:
                return cls(name, kind, float(weight))
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(
            f"{name!r}: give frozen, joint:L or joint_nll:L with a number L, 0 or more"
        )

    @property
    def trains_decoder(self) -> bool:
        return self.kind != FROZEN


class JointStage(FlowStage):
    """The flow's loss, whose gradient also reaches a decoder that is trained, and the regulariser of that decoder."""

    def __init__(
        self,
        config: FlowStageConfig,
        auxiliary: AuxiliaryModel,
        before: AuxiliaryModel,
        setting: Setting,
        width: Width,
        **options: Any,
    ) -> None:
        """`before`: the auxiliary model as it was; `auxiliary`: a copy whose decoder may be trained."""
        super().__init__(config, auxiliary, **options)
        self.before, self.setting, self.width = before, setting, width
        self.decoded: tuple[Tensor, Prior]  # z and the prior, not widened, of the last batch

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss:
        found = super().loss(module, batch, noise)
        if not self.setting.weight:
            return found
        penalty = self.penalty(batch).mean()
        metrics = found.metrics | {"penalty": penalty.detach()}
        return found._replace(loss=found.loss + self.setting.weight * penalty, metrics=metrics)

    def penalty(self, batch: Batch) -> Tensor:
        """The regulariser of each sample of the last batch of `loss`, shape (batch,)."""
        z, prior = self.decoded
        if self.setting.kind == JOINT_NLL:
            return variance_guided_loss(batch.images, prior.mean, prior.logvar)
        with torch.no_grad():
            held = self.before.decode(z, augmentation=batch.augmentation).logvar
        return mean_over_pixels((prior.logvar - held).square())

    def _start(self, given: Given, batch: Batch, noise: SampleNoise) -> TrainingStart:
        """As FlowStage's, with gradients through x; the importance weights have none."""
        assert self.auxiliary is not None and self.width is not None and given.z is not None
        prior = self.auxiliary.decode(given.z, augmentation=given.augmentation)
        logvar = widen(prior.logvar, self.width.added, self.width.scale)
        gaussian = noise.normal(batch.ids, "prior", tuple(batch.images.shape[1:]))
        self.decoded = given.z, prior
        return TrainingStart(sample(prior.mean, logvar, gaussian), logvar.detach())


class Optimised:
    """The parts that a setting trains: AdamW, a gradient norm of its own for each, and averaged weights.

    With one norm for all, a steep regulariser of the decoder would shorten the velocity's steps.
    """

    def __init__(self, parts: list[tuple[nn.Module, float]], command: TrainCommand) -> None:
        """`parts`: each with its learning rate."""
        train = command.train
        groups = [group for part, rate in parts for group in parameter_groups(part, rate, train.weight_decay)]
        self.parts = [[*part.parameters()] for part, _ in parts]
        self.optimizer = adamw(groups, (train.beta1, train.beta2))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.averages = Averages([weight for part in self.parts for weight in part], (HALF_LIFE,))
        self.most = command.engine.gradient_clip or torch.inf

    def step(self, loss: Tensor, factor: float, decays: dict[str, float]) -> None:
        """One step at `factor` times the learning rates; skipped if a gradient is not finite."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        loss.backward()
        norms = [nn.utils.clip_grad_norm_(part, self.most) for part in self.parts]
        skip_unless_finite(self.optimizer, torch.stack(norms).sum())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.update(decays)
