"""Random reads of finished shards: sample number -> its bytes, its array, its signal.

Tars are mapped into memory and read at the table's offsets. A `.npy` payload is its array's bytes behind a
header, and all samples of a set have one shape, so an array is a view at the payload's end.
"""

import json
import mmap
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from lediflow.codecs import Latents, bytes_to_signal
from lediflow.data.images import picture_pixels
from lediflow.data.index import ShardIndex, key_name

__all__ = ["ShardIndex", "ShardReader"]

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

    def key(self, sample: int) -> str:
        return key_name(self.index.table["key"][sample])

    def label(self, sample: int) -> int:
        """Class number, -1 where the set has no classes."""
        return int(self.index.table["label"][sample])

    def metadata(self, shard: int) -> list[dict[str, Any]]:
        """The JSON members of one shard's samples, in order."""
        with tarfile.open(self.index.root / self.index.shards[shard].name, "r:") as tar:
            streams = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
            return [json.load(stream) for stream in streams if stream]

    def payload(self, sample: int) -> memoryview:
        """The sample's bytes as they lie in the tar."""
        row = self.index.table[sample]
        shard = self._shard(int(self.index.shard_of_sample[sample]))
        return memoryview(shard)[row["offset"] : row["offset"] + row["length"]]

    def array(self, sample: int) -> Shaped[np.ndarray, "channels height width"]:
        """The sample's stored array."""
        contents, payload = self.index.contents, self.payload(sample)
        if contents.payload != "npy":
            return picture_pixels(payload)
        count = int(np.prod(contents.shape))
        header = len(payload) - count * np.dtype(contents.dtype).itemsize
        return np.frombuffer(payload, contents.dtype, count, header).reshape(contents.shape)

    def signals(self, samples: Int64[np.ndarray, " batch"]) -> Latents:
        """A batch as float32: images in [-1, 1], or latents as their codec gave them."""
        stored = torch.from_numpy(np.stack([self.array(int(sample)) for sample in samples]))
        if stored.dtype == torch.uint8:
            return Latents(bytes_to_signal(stored), None)
        if self.index.contents.has_logvar:
            return Latents(*stored.float().chunk(2, dim=1))
        return Latents(stored.float(), None)

    def labels(self, samples: Int64[np.ndarray, " batch"]) -> Int64[Tensor, " batch"] | None:
        if self.index.contents.classes is None:
            return None
        return torch.from_numpy(self.index.table["label"][samples].copy())

    def _map_shard(self, number: int) -> mmap.mmap:
        with (self.index.root / self.index.shards[number].name).open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
