"""Corrupt samples: reported, counted, and replaced by the next one.

The next usable sample in the stored order replaces a corrupt one. This is a function of the data alone, so every rank
and every resumed run uses the same replacement. The order of the other samples is unchanged.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from lediflow.data.shards.reader import CorruptSampleError, ShardReader
from lediflow.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
NAMED = 3  # corrupt samples named in the final error


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
