"""What all settings of joint_decoder.py share: models, data, options, and measures of the prior on held-out images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lediflow.config.building.inputs import Inputs, open_inputs
from lediflow.config.building.models import Parent
from lediflow.config.composition.checks import check_command, typed
from lediflow.config.composition.command_line import hydra_arguments
from lediflow.config.composition.compose import composed
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.batch import Batch, load_samples, ready
from lediflow.data.streams.order import samples_of, spread_over
from lediflow.engine.ranks import Ranks, choose_device
from lediflow.errors import UserError
from lediflow.flow.losses import mean_over_pixels, variance_guided_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Spread, Width, automatic_width, log_spreads, typical_spread
from lediflow.models.auxiliary import AuxiliaryModel, Prior
from lediflow.run_folder import RunFolder
from lediflow.stages.draws import draw_latents
from lediflow.stages.protocol import AUTO, scale_of
from lediflow.training.prior_width import IMAGES
from lediflow.training.validation import NOISE_SEED

PIECE = 64  # held-out images per batch


@dataclass(frozen=True)
class Experiment:
    """Models, data and options that all settings share."""

    options: argparse.Namespace
    command: TrainCommand
    inputs: Inputs
    parent: Parent
    device: torch.device
    width: Width

    @classmethod
    def build(cls, options: argparse.Namespace) -> Experiment:
        command = train_command(options)
        check_command(command)
        inputs = open_inputs(command, Ranks())
        assert inputs.parent is not None
        device = choose_device(command.engine.device)
        inputs.parent.model.to(device)
        width = Width(scale_of(command.stage))
        found = cls(options, command, inputs, inputs.parent, device, width)
        if not len(found.held_out()):
            raise UserError(f"{options.data} has no held-out images; set data.held_out_fraction with --train")
        asked = command.stage.prior_widening
        added = (
            float(asked) if asked != AUTO else automatic_width(found.spread(inputs.parent.model), width.scale)
        )
        return dataclasses.replace(found, width=width._replace(added=added))

    def held_out(self, most: int = IMAGES) -> np.ndarray:
        """Numbers of up to `most` held-out images, spread over the set."""
        keys = self.inputs.reader.index.table["key"]
        return spread_over(samples_of("heldout", keys, self.command.data.held_out_fraction), most)

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out images as they are, not flipped; their draws are those of the toolkit's validation."""
        reader, noise, samples = self.inputs.reader, SampleNoise(NOISE_SEED), self.held_out()
        for first in range(0, len(samples), PIECE):
            chosen = samples[first : first + PIECE]
            yield ready(load_samples(reader, chosen, chosen), reader, noise, self.device)

    @torch.no_grad()
    def spread(self, auxiliary: AuxiliaryModel) -> Spread:
        """Typical sigma and residual on held-out images."""
        return typical_spread(
            torch.cat([log_spreads(y, *prior) for y, prior in self.decoded(auxiliary)]).cpu()
        )

    @torch.no_grad()
    def decoded(self, auxiliary: AuxiliaryModel) -> Iterator[tuple[Tensor, Prior]]:
        """Held-out images and their priors, not widened."""
        for batch in self.held_out_batches():
            yield batch.images, auxiliary.decode(draw_latents(auxiliary, batch, SampleNoise(NOISE_SEED)))

    @torch.no_grad()
    def prior_facts(self, auxiliary: AuxiliaryModel) -> dict[str, float]:
        """Measures of the prior on held-out images; a collapsed variance is visible in sigma and in the VGL."""
        vgl, moved = [], []
        pairs = zip(self.decoded(auxiliary), self.decoded(self.parent.model), strict=True)
        for (y, prior), (_, before) in pairs:
            vgl.append(variance_guided_loss(y, *prior))
            moved.append(mean_over_pixels((prior.mean - before.mean).square()))
        sigma, residual = self.spread(auxiliary)
        return {
            "sigma": sigma,
            "residual": residual,
            "vgl": torch.cat(vgl).mean().item(),
            "mean_moved": torch.cat(moved).mean().sqrt().item(),  # root mean square, in the images' units
        }

    @property
    def setup(self) -> dict[str, Any]:
        """The values that must be equal for two settings to be comparable."""
        train, options = self.command.train, self.options
        return {
            "experiment": options.experiment,
            "overrides": [*options.train],
            "seed": self.command.seed,
            "images": train.images,
            "batch": train.global_batch,
            "learning_rate": train.learning_rate,
            "decoder_rate": options.decoder_rate,
            "half_life_images": train.ema.half_life_images,
            "prior_widening": self.width.added,
            "prior_scale": self.width.scale,
            "count": options.count,
            "auxiliary": self.parent.sha256,
            "data": self.inputs.reader.index.fingerprint,
            "sampler": RunFolder(Path(options.sampler)).weights_hash() if options.sampler else None,
        }


def train_command(options: argparse.Namespace) -> TrainCommand:
    """The configuration of `stage=flow` in the experiment, with what the options change."""
    given = {
        "train.images": options.images,
        "train.global_batch": options.batch,
        "train.learning_rate": options.learning_rate,
        "train.ema.half_life_images": options.half_life,
    }
    overrides = [
        f"experiment={options.experiment}",
        "stage=flow",
        f"data.path={options.data}",
        f"parent={options.auxiliary}",
        f"run={options.folder}/flow",
        f"seed={options.seed}",
        f"engine.device={options.device}",
        f"stage.prior_widening={options.widening}",
        *(f"{key}={value}" for key, value in given.items() if value is not None),
        *options.train,
    ]
    return typed(composed("train", hydra_arguments(overrides, TrainCommand)))
