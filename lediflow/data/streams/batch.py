"""Samples as a batch: as they are stored, and ready for a model; corrupt ones are replaced.

Loading threads deliver stored arrays (bytes or half precision, two to eight times smaller than float32), flipped where
a flip was drawn, and begin their copies to a GPU. There they are converted, and latents are drawn. Draws and flips are
keyed by a sample's position in the run, so they are the same on any device and any number of ranks.

A corrupt sample is reported, counted, and replaced by the next usable sample in the stored order. This is a function
of the data alone, so every rank and every resumed run uses the same replacement. The order of the other samples is
unchanged.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from lediflow.data.shards.reader import CorruptSampleError, ShardReader
from lediflow.data.streams.decoded import DecodedPictures
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise

Images = Shaped[Tensor, "batch channels height width"]
DIMENSIONS = {"horizontal": -1, "vertical": -2}
log = logging.getLogger(__name__)
T = TypeVar("T")
NAMED = 3  # corrupt samples named in the final error


@dataclass(frozen=True, kw_only=True)
class StoredBatch:
    """Samples with their positions in the run, as they are stored in the shards."""

    ids: Int64[Tensor, " batch"]  # positions in the run, which key all random draws
    keys: list[str]
    stored: Shaped[Tensor, "batch stored_channels height width"]
    labels: Int64[Tensor, " batch"] | None
    arrived: Any = None  # CUDA event after which the copies on a GPU are whole; None: they are whole

    def __len__(self) -> int:
        return len(self.keys)

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> "StoredBatch":
        """The batch with changed tensors."""
        labels = None if self.labels is None else change(self.labels)
        return replace(self, ids=change(self.ids), stored=change(self.stored), labels=labels)

    def await_copies(self) -> None:
        """Make the current CUDA stream wait until the copies have arrived; the host does not wait."""
        if self.arrived is None:
            return
        stream = torch.cuda.current_stream(self.ids.device)
        stream.wait_event(self.arrived)
        for tensor in (self.ids, self.stored, self.labels):
            if tensor is not None:  # its memory is not used for another copy before this stream has read it
                tensor.record_stream(stream)


class Uploads:
    """Copies of batches to a GPU on a CUDA stream of their own, so that they arrive while earlier steps compute.

    Loading threads call it; whoever uses the batch calls `await_copies` first.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def __call__(self, batch: StoredBatch) -> StoredBatch:
        """The batch with tensors that are being copied to the GPU from page-locked memory."""
        pinned = batch.with_tensors(Tensor.pin_memory)
        with torch.cuda.stream(self.stream):
            copies = pinned.with_tensors(lambda tensor: tensor.to(self.device, non_blocking=True))
            arrived = torch.cuda.Event()
            arrived.record(self.stream)
        return replace(copies, arrived=arrived)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples with their positions in the run, as a model sees them."""

    ids: Int64[Tensor, " batch"]
    keys: list[str]
    images: Float[Tensor, "batch channels height width"]  # in [-1, 1], or latents
    labels: Int64[Tensor, " batch"] | None
    is_encoded: bool = False  # `images` are draws of z from the frozen encoder
    # numbers that describe each image's augmentation; None: not augmented
    augmentation: Float[Tensor, "batch 9"] | None = None

    def __len__(self) -> int:
        return len(self.keys)


def load_samples(
    reader: ShardReader,
    samples: Int64[np.ndarray, " batch"],
    ids: Int64[np.ndarray, " batch"],
    views: Int64[np.ndarray, " batch"] | None = None,
    decoded: DecodedPictures | None = None,
) -> StoredBatch:
    """Load samples by index, for the positions `ids` of the run; pictures from `decoded`, where it is given."""
    return StoredBatch(
        ids=torch.from_numpy(ids),
        keys=reader.keys(samples),
        stored=(decoded or reader).stored(samples, views),
        labels=reader.labels(samples),
    )


def ready(batch: StoredBatch, reader: ShardReader, noise: SampleNoise, device: torch.device | str) -> Batch:
    """A batch on a device, as a model sees it, with draws from each stored posterior."""
    batch.await_copies()
    ids, stored = (tensor.to(device, non_blocking=True) for tensor in (batch.ids, batch.stored))
    labels = None if batch.labels is None else batch.labels.to(device, non_blocking=True)
    signals = reader.as_signals(stored)
    images = signals.mean
    if signals.logvar is not None:
        images = signals.draw(noise.normal(ids, "codec", tuple(images.shape[1:])))
    return Batch(ids=ids, keys=batch.keys, images=images, labels=labels)


def each_once(
    reader: ShardReader, samples: Int64[np.ndarray, " samples"], batch_size: int, *, seed: int = 0
) -> Iterator[Batch]:
    """Batches of the given samples in the given order, for evaluation; ids are the samples' indices."""
    noise = SampleNoise(seed)
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        yield ready(load_samples(reader, chosen, chosen), reader, noise, "cpu")


def is_flipped(ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Bool[Tensor, " batch"]:
    """Whether the image at each position of the run is flipped: true for half of them, whichever rank loads it."""
    return noise.uniform(ids, f"flip_{axis}") < 0.5


def flip(images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> None:
    """Flip the images chosen by `is_flipped` along "horizontal" or "vertical", in place, on the CPU."""
    rows = is_flipped(ids, noise, axis=axis).nonzero()[:, 0]
    # NumPy assigns whole rows thirty times as fast as `index_copy_`
    images.numpy()[rows.numpy()] = images.index_select(0, rows).flip(DIMENSIONS[axis]).numpy()


class Quarantine:
    """The corrupt samples among `samples` that this rank has read so far. Thread-safe."""

    def __init__(self, reader: ShardReader, samples: Int64[np.ndarray, " samples"], allowed_share: float):
        self.reader, self.samples = reader, samples
        self.allowed = int(allowed_share * len(samples))
        self.reasons: dict[int, str] = {}  # sample -> what is wrong with it
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.reasons)

    def loaded(
        self, samples: Int64[np.ndarray, " batch"], load: Callable[[Int64[np.ndarray, " batch"]], T]
    ) -> T:
        """Load samples with `load`, replacing those that it finds corrupt."""
        chosen = np.array([self.replacement(sample) for sample in samples]) if self.reasons else samples
        while True:
            try:
                return load(chosen)
            except CorruptSampleError as error:
                self.add(error)
                chosen = np.array([self.replacement(sample) for sample in chosen.tolist()])

    def replacement(self, sample: int) -> int:
        """The sample itself, or the next one that is not known to be corrupt."""
        if len(self) == len(self.samples):
            raise UserError(self._too_many())
        while sample in self.reasons:
            place = np.searchsorted(self.samples, sample) + 1
            sample = int(self.samples[place % len(self.samples)])
        return sample

    def add(self, error: CorruptSampleError) -> None:
        """Record a corrupt sample; UserError if there are too many."""
        with self._lock:
            if error.sample in self.reasons:
                return
            self.reasons[error.sample] = error.reason
            count = len(self.reasons)
        log.warning(
            "%s: %s; the next sample takes its place (%d of %d samples so far, up to %d are allowed)",
            self._name(error.sample), error.reason, count, len(self.samples), self.allowed,
        )  # fmt: skip
        if count > self.allowed:
            raise UserError(self._too_many())

    def _name(self, sample: int) -> str:
        return f"{self.reader.name_of(sample)} is corrupt"

    def _too_many(self) -> str:
        first = "; ".join(
            f"{self._name(sample)}: {reason}" for sample, reason in [*self.reasons.items()][:NAMED]
        )
        return (
            f"{len(self)} of {len(self.samples)} samples are corrupt, data.max_corrupt_share allows {self.allowed} "
            f"({first}{'; ...' if len(self) > NAMED else ''}). Copy or make these shards again, or raise "
            "data.max_corrupt_share"
        )
