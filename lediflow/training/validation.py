"""The loss on held-out samples, with the same samples and the same draws every time.

A sample's time and noise are keyed by its number in the set under a fixed seed, so the loss does not depend on the
run's seed, on the step or on the number of ranks: curves of two runs differ by their weights alone. (With
stage.coupling=optimal_transport it depends on the micro-batch, as training does.) Every rank makes the same number of
forward calls, because sharded weights (ZeRO 3) are gathered in each; a rank without samples left repeats one, which
does not count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import Quarantine, StoredBatch, load_samples, ready
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.order import samples_of, spread_over
from lediflow.disk import hash_key
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.ranges import bounded
from lediflow.stages.protocol import Stage, StageLoss
from lediflow.training.held_out import Losses
from lediflow.training.recording import Totals

log = logging.getLogger(__name__)

EVERY_IMAGES = 65_536  # 2 x 512 forward passes in so many training images are 0.5 % of the work
NOISE_SEED = 0
KEPT_BYTES = 2**30  # of samples that are kept in memory from the first validation on
CORRUPT_SHARE = 0.5  # tolerated share of unreadable samples: they cost only precision

Samples = Int64[np.ndarray, " samples"]


@dataclass(kw_only=True)
class ValidationConfig:
    """How often and on how many held-out samples the loss is measured."""

    # 0: never | null: every 65536 where data.held_out_fraction is not 0
    every_images: int | None = bounded(None, at_least=0)
    # number of held-out samples, the same ones each time; more: less noise, longer validations
    samples: int = bounded(512, at_least=1)


def build_validation(
    config: ValidationConfig, data: DataConfig, reader: ShardReader, device: torch.device, needed_by: str = ""
) -> Validation | None:
    """The validation of a run, None if it has none. `needed_by`: the option that needs held-out losses, or empty.

    UserError where held-out losses are asked for, but no sample is held out.
    """
    if config.every_images == 0:
        return None
    held_out = samples_of("heldout", reader.index.table["key"], data.held_out_fraction)
    if len(held_out):
        return Validation(reader, held_out, config, device)
    found = f"data.held_out_fraction={data.held_out_fraction} holds out none of the {len(reader)} samples of"
    if config.every_images or needed_by:
        asker = needed_by or f"train.validation.every_images={config.every_images}"
        raise UserError(
            f"{asker} asks for the loss on held-out samples, but {found} "
            f"{reader.index.root}; raise data.held_out_fraction, or "
            + ("leave the option out" if needed_by else "set train.validation.every_images=0")
        )
    if data.held_out_fraction:
        log.warning("no validation: %s %s", found, reader.index.root)
    return None


class Validation:
    """The loss of some held-out samples, spread evenly over the set."""

    def __init__(
        self, reader: ShardReader, held_out: Samples, config: ValidationConfig, device: torch.device
    ) -> None:
        self.reader, self.device = reader, device
        self.every_images = EVERY_IMAGES if config.every_images is None else config.every_images
        self.samples = spread_over(held_out, config.samples)
        self.noise = SampleNoise(NOISE_SEED)
        self.quarantine = Quarantine(reader, held_out, CORRUPT_SHARE)
        self.keeps = len(self.samples) * reader.row_bytes <= KEPT_BYTES
        self.kept: dict[bytes, StoredBatch] = {}  # by the numbers of its samples

    def measure(self, engine: Engine, stage: Stage) -> dict[str, Any]:
        """The values of the event `validation`: means and bins as in training. Every rank must call it."""
        started, totals = time.perf_counter(), Totals()
        for places, result in self._passes(engine, stage):
            totals.add(result, is_counted=len(places) > 0)
        means = totals.means(engine.group.sum(totals.with_extra([])))
        return {**means, "samples": len(self.samples), "seconds": time.perf_counter() - started}

    def losses(self, engine: Engine, stage: Stage) -> Losses:
        """The loss of each sample, [samples], in the order of `samples`. Every rank must call it, and gets all."""
        found: list[tuple[Samples, Tensor]] = []
        for places, result in self._passes(engine, stage):
            found.append((places, result.per_sample[: len(places)]))
        losses = torch.zeros(len(self.samples), dtype=torch.float64)
        for places, values in found:  # copied here, so that no batch waits for the device
            losses[places] = values.to("cpu", torch.float64)
        return engine.group.sum(losses).numpy()

    def keys_at(self, chosen: Bool[np.ndarray, " samples"]) -> list[str]:
        """Keys of the chosen samples."""
        return self.reader.keys(self.samples[chosen])

    @property
    def fingerprint(self) -> str:
        """A hash of the samples' keys."""
        keys = self.reader.keys(self.samples)
        return hash_key("\n".join(keys))

    def _passes(self, engine: Engine, stage: Stage) -> Iterator[tuple[Samples, StageLoss]]:
        """This rank's batches: places in `samples` (empty where other ranks have more batches) and the stage's loss."""
        places = parts_of_rank(np.arange(len(self.samples)), engine.ranks, engine.micro_batch)
        numbers = [self.samples[part if len(part) else [0]] for part in places]
        with inference(engine.module):
            for part, stored in zip(places, loaded_ahead(self._load, numbers), strict=True):
                batch = ready(stored, self.reader, self.noise, self.device)
                yield part, stage.loss(engine.module, batch, self.noise)

    def _load(self, samples: Samples) -> StoredBatch:
        """A batch of these samples, which are the same in every validation: read and decoded once, if they fit."""
        if (known := self.kept.get(samples.tobytes())) is not None:
            return known
        batch = self.quarantine.loaded(samples, lambda chosen: load_samples(self.reader, chosen, chosen))
        if self.keeps:
            self.kept[samples.tobytes()] = batch
        return batch


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode, without gradients, and not compiled.

    Compiling it again, for passes without gradients, would take longer (a minute) than the passes do.
    """
    was_training = module.training
    is_compiled = any(part._compiled_call_impl is not None for part in module.modules())
    module.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
            yield
    finally:
        module.train(was_training)


def parts_of_rank(samples: Samples, ranks: Ranks, size: int) -> list[Samples]:
    """A rank's samples in parts of at most `size`: equally many parts on every rank, of which the last may be empty."""
    longest = -(-len(samples) // ranks.world_size)
    own = samples[ranks.rank :: ranks.world_size]
    return [own[start : start + size] for start in range(0, longest, size)]


def loaded_ahead(load: Callable[[Samples], StoredBatch], parts: Sequence[Samples]) -> Iterator[StoredBatch]:
    """Load each part while the one before it is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="validation") as pool:
        coming = pool.submit(load, parts[0])
        for following in parts[1:]:
            stored, coming = coming.result(), pool.submit(load, following)
            yield stored
        yield coming.result()
