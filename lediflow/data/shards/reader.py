"""Random reads of finished shards: sample number -> its bytes, its array, its signal.

Tars are mapped into memory and read at the table's offsets. A `.npy` payload is its array's bytes behind a
header, and all samples of a set have one shape, so an array is a view at the payload's end.
"""

import json
import math
import mmap
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from lediflow.codecs import Latents, bytes_to_signal
from lediflow.data.images import picture_pixels
from lediflow.data.shards.index import ShardIndex, key_name

__all__ = ["ShardIndex", "ShardReader"]

Stored = Shaped[np.ndarray, "channels height width"]

OPEN_SHARDS = 128  # well below the usual limit of 1,024 open files


class ShardReader:
    """The samples of a set of shards, by number. Threads may share it."""

    def __init__(self, index: ShardIndex):
        self.index = index
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(self._map_shard)

    @classmethod
    def open(cls, path: str | Path) -> "ShardReader":
        return cls(ShardIndex.load(path))

    def __len__(self) -> int:
        return len(self.index)

    def keys(self, samples: Int64[np.ndarray, " batch"]) -> list[str]:
        """The samples' names in their tars."""
        return [key_name(key) for key in self.index.table["key"][samples].tolist()]

    def metadata(self, shard: int) -> list[dict[str, Any]]:
        """The JSON members of one shard's samples, in order."""
        with tarfile.open(self.index.root / self.index.shards[shard].name, "r:") as tar:
            streams = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
            return [json.load(stream) for stream in streams if stream]

    def payload(self, sample: int) -> memoryview:
        """The sample's bytes as they lie in the tar."""
        return next(self._payloads(np.array([sample])))

    def array(self, sample: int) -> Stored:
        """The sample's stored array."""
        return self._unpacked(self.payload(sample))

    def signals(self, samples: Int64[np.ndarray, " batch"]) -> Latents:
        """A batch as float32: images in [-1, 1], or latents as their codec gave them."""
        stored = torch.from_numpy(np.stack([*map(self._unpacked, self._payloads(samples))]))
        if stored.dtype == torch.uint8:
            return Latents(bytes_to_signal(stored), None)
        if self.index.contents.has_logvar:
            return Latents(*stored.float().chunk(2, dim=1))
        return Latents(stored.float(), None)

    def labels(self, samples: Int64[np.ndarray, " batch"]) -> Int64[Tensor, " batch"] | None:
        """Class numbers; None where the set has no classes."""
        if self.index.contents.classes is None:
            return None
        return torch.from_numpy(self.index.table["label"][samples].copy())

    def _payloads(self, samples: Int64[np.ndarray, " batch"]) -> Iterator[memoryview]:
        rows, shards = self.index.table[samples], self.index.shard_of_sample[samples]
        places = zip(shards.tolist(), rows["offset"].tolist(), rows["length"].tolist(), strict=True)
        return (self._shard(shard)[offset : offset + length] for shard, offset, length in places)

    def _unpacked(self, payload: memoryview) -> Stored:
        contents = self.index.contents
        if contents.payload != "npy":
            return picture_pixels(payload)
        count = math.prod(contents.shape)
        header = len(payload) - count * np.dtype(contents.dtype).itemsize
        return np.frombuffer(payload, contents.dtype, count, header).reshape(contents.shape)

    def _map_shard(self, number: int) -> memoryview:
        with (self.index.root / self.index.shards[number].name).open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
