"""What a run computes: parameters, FLOPs and activations of a step, its division over ranks, samples and epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lediflow.config.building.inputs import batch_split, check_samples, encodes_once
from lediflow.config.building.micro_batch import cost_of
from lediflow.config.building.models import has_parent, load_export, parent_spec
from lediflow.config.building.teacher import draws_latents, latents_cost
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.foreign import has_index, lacks_index
from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage.folders import is_remote
from lediflow.data.streams.config import training_samples
from lediflow.engine.precision import choose_precision
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import choose_device
from lediflow.models import AuxiliarySpec, LatentSampler, LatentSamplerSpec
from lediflow.models.cost import model_cost
from lediflow.nn.cost import Cost, ModelCost
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind
from lediflow.stages.protocol import AUTO, scale_of
from lediflow.text import Facts
from lediflow.training.throughput import parent_flops


@dataclass(frozen=True)
class Work:
    """Cost of training one stage."""

    engine: EngineConfig  # with its precision resolved
    ranks: int
    micro_batch: int
    accumulation: int
    model: ModelCost
    # of the frozen parent, and of a sampler that draws latents: all parameters, FLOPs of the parts that a step calls
    frozen: Cost
    # forward passes for each image: of the model, of a teacher of the same size
    passes: tuple[int, int] = (1, 0)

    @property
    def share(self) -> int:
        """Images per rank and step."""
        return self.micro_batch * self.accumulation

    @property
    def parameters(self) -> int:
        return self.model.total.parameters

    @property
    def flops(self) -> int:
        """FLOPs of training on one image."""
        trained, taught = self.passes
        return trained * self.model.training_flops + taught * self.model.total.flops + self.frozen.flops

    @property
    def frozen_parameters(self) -> int:
        """Parameters of the parent, of the teacher and of a sampler that draws latents."""
        return self.frozen.parameters + (self.parameters if self.passes[1] else 0)


def work_of(command: TrainCommand, ranks: int) -> Work:
    engine = planned(command.engine)
    split = batch_split(command, ranks)
    model = cost_of(command, engine)
    passes = stage_kind(command.stage.name).passes(command.stage)
    parent = parent_spec(command) if has_parent(command) else None
    frozen = frozen_cost(command, parent, ranks)
    if draws_latents(command):
        drawn = latents_cost(command, sampler_spec(command), parent)
        frozen = Cost(frozen.parameters + drawn.parameters, frozen.flops + drawn.flops)
    return Work(engine, ranks, *split, model, frozen, passes)


def sampler_spec(command: TrainCommand) -> LatentSamplerSpec:
    """The specification of the sampler that sampler= names; without its export, that of the command's models."""
    folder = RunFolder(Path(str(command.sampler)))
    if not folder.is_exported:
        return command.model.latent_sampler
    return load_export(LatentSampler, folder.export, "sampler=RUN, a run of stage=latent_sampler").spec


def planned(config: EngineConfig) -> EngineConfig:
    """The engine options with precision=auto resolved; a GPU that is not present is assumed to support bfloat16."""
    is_elsewhere = config.device.startswith("cuda") and not torch.cuda.is_available()
    device = torch.device("cpu") if is_elsewhere else choose_device(config.device, option="engine.device")
    precision = config.precision if config.precision != "auto" or not is_elsewhere else "bfloat16"
    return replace(config, precision=choose_precision(precision, device))


def frozen_cost(command: TrainCommand, parent: AuxiliarySpec | None, ranks: int) -> Cost:
    """Cost per image of the frozen auxiliary model, if there is one: of the parts that the stage calls.

    A latent sampler that trains on stored latents calls none.
    """
    if parent is None:
        return Cost()
    size = command.model.image_size
    cost = model_cost(parent, size, size)
    called = parent_flops(stage_kind(command.stage.name), parent, size)
    return Cost(cost.total.parameters, 0 if has_encoded_before(command, ranks) else called)


def has_encoded_before(command: TrainCommand, ranks: int) -> bool:
    """Whether latents are encoded once before training; if the data cannot be read, `stage.encode_once` decides."""
    asked = stage_kind(command.stage.name).encode_once(command.stage)
    if asked is False:
        return False
    reader = opened(command)
    return bool(asked) if reader is None else encodes_once(command, reader, ranks)


def work_facts(command: TrainCommand, work: Work) -> Facts:
    train = command.train
    batch = f"{work.ranks} ranks x micro-batch {work.micro_batch} x accumulation {work.accumulation}"
    frozen = "the frozen parent" + " and the latent sampler" * draws_latents(command)
    of_parent = f", of which {work.frozen.flops / 1e9:.2f} in {frozen}" if work.frozen.flops else ""
    facts = [
        ("trained parameters", f"{work.parameters:,}"),
        ("FLOP per image", f"{work.flops / 1e9:,.2f} G{of_parent}"),
        ("FLOP per step", f"{work.flops * train.global_batch / 1e12:,.3f} T"),
        ("global batch", f"{train.global_batch} = {batch}"),
        ("run", f"{train.images:,} images, {-(-train.images // train.global_batch):,} steps"),
        ("precision", work.engine.precision),
    ]
    if stage_kind(command.stage.name).widens_prior and has_parent(command):
        asked, scale = command.stage.prior_widening, scale_of(command.stage)
        origin = "the teacher's" if work.passes[1] else "measured when the run begins"
        found = f" ({origin})" if asked == AUTO else ""
        scaled = "" if scale == 1 else f", sigma times {scale:g}"
        facts.append(("width added to the prior", f"{asked}{found}{scaled}"))
    if work.frozen_parameters:
        facts.insert(1, ("frozen parameters", f"{work.frozen_parameters:,}"))
    return facts


def opened(command: TrainCommand) -> ShardReader | None:
    """The shards of data.path; None if they do not exist or are unfinished."""
    path = command.data.path
    if not path or not (is_remote(path) or (has_index(path) and not lacks_index(path))):
        return None
    return ShardReader.open(path, command.data.reading)


def sample_facts(command: TrainCommand) -> Facts:
    """Rows of the section "Samples": images and steps per epoch, if the data exists."""
    path = command.data.path
    if not path:
        return [("data.path", "not given")]
    if not is_remote(path):
        if lacks_index(path):
            return [("data.path", f"{path} holds tars without an index, which the run would create first")]
        if not has_index(path):
            drawn = f"; {command.synthetic_images} toy pictures would be drawn" * bool(
                command.synthetic_images
            )
            return [("data.path", f"{path} holds no finished shards yet{drawn}")]
    reader = opened(command)
    assert reader is not None
    check_samples(command, reader)
    images, batch = len(training_samples(reader, command.data)), command.train.global_batch
    return [
        ("data.path", str(path)),
        ("images per epoch", f"{images:,} ({len(reader) - images:,} held out)"),
        ("steps per epoch", f"{images / batch:,.1f}"),
        ("epochs", f"{command.train.images / images:,.1f}"),
    ]
