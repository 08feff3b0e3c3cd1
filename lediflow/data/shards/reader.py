"""Random reads of finished shards: sample number -> its stored array -> its signal.

A `.npy` payload is the bytes of its array after a header, and all samples of a set have the same shape: the array is
read from its position in the tar straight into its row of the batch. Pictures are decoded into their rows.
"""

import math
import tarfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from PIL import Image
from torch import Tensor

from lediflow.codecs import Latents, bytes_to_signal
from lediflow.data.photograph import PILLOW_MODES, decoded_photograph, faults_of_file
from lediflow.data.pixels import UnusableImageError, opaque_srgb
from lediflow.data.shards.foreign import load_or_index
from lediflow.data.shards.index import ShardIndex, key_name
from lediflow.data.shards.tar_samples import metadata_by_offset
from lediflow.data.storage import Read, ReadingConfig, open_storage
from lediflow.data.storage.folders import is_remote
from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.text import shape_text

__all__ = ["CorruptSampleError", "ShardIndex", "ShardReader"]

Stored = Shaped[np.ndarray, "channels height width"]
Samples = Int64[np.ndarray, " batch"]


class CorruptSampleError(UserError):
    """A sample's bytes can be read, but are damaged; the message names the sample and its shard."""

    def __init__(self, sample: int, name: str, reason: str):
        super().__init__(f"{name} is corrupt: {reason}; copy or make these shards again")
        self.sample, self.name, self.reason = sample, name, reason


class ShardReader:
    """The samples of a set of shards, by index. Thread-safe."""

    def __init__(self, index: ShardIndex, reading: ReadingConfig | None = None):
        self.index, self.reading = index, reading or ReadingConfig()
        self.storage = open_storage(
            index.root, self.reading, index.file_sizes, self._check_copy, index.fingerprint
        )
        self.names = [shard.name for shard in index.shards]
        contents = index.contents
        # pictures that lediflow.prepare wrote need no conversion
        self.is_ours = "tars" not in contents.made_from
        self.is_array = contents.payload == "npy"
        channels, height, width = contents.shape
        # Pillow decodes pictures channels last; `stored` returns channels first in either case
        self.row_shape = (channels, height, width) if self.is_array else (height, width, channels)
        self.row_bytes = math.prod(contents.shape) * np.dtype(contents.dtype).itemsize

    @classmethod
    def open(cls, where: str | Path, reading: ReadingConfig | None = None) -> "ShardReader":
        """Open the set at a path or address; local tars without an index are indexed first."""
        if is_remote(str(where)):
            return cls(ShardIndex.load(where, reading), reading)
        return cls(load_or_index(where), reading)

    def __len__(self) -> int:
        return len(self.index)

    def keys(self, samples: Samples) -> list[str]:
        """Keys of the samples in their tars."""
        if self.index.names is not None:
            return [name.decode(errors="surrogateescape") for name in self.index.names[samples].tolist()]
        return [key_name(key) for key in self.index.table["key"][samples].tolist()]

    def metadata(self, shard: int) -> list[dict[str, Any]]:
        """Metadata of one shard's samples, in their order: their JSON members, with the label of the index."""
        end = int(self.index.shard_ends[shard])
        rows = self.index.table[end - self.index.shards[shard].samples : end]
        content = self.storage.read(self.names[shard])
        try:
            found = metadata_by_offset(BytesIO(content))
        except tarfile.TarError as error:
            raise UserError(
                f"{self.index.root}/{self.names[shard]} can no longer be read as a tar ({error}); copy or make these "
                "shards again"
            ) from error
        labels = [label if label >= 0 else None for label in rows["label"].tolist()]
        return [
            found.get(offset, {}) | {"label": label}
            for offset, label in zip(rows["offset"].tolist(), labels, strict=True)
        ]

    def payload(self, sample: int) -> bytes:
        """The sample's payload; its checksum is verified if `reading.checksums` is set."""
        return self.payloads(np.array([sample]))[0]

    def payloads(self, samples: Samples) -> list[bytes]:
        """Payloads of several samples, fetched together."""
        rows = self.index.table[samples]
        contents = [bytearray(length) for length in rows["length"].tolist()]
        places = zip(self._names_of(samples), rows["offset"].tolist(), contents, strict=True)
        self.storage.read_into([Read(name, offset, memoryview(content)) for name, offset, content in places])
        if self.reading.checksums:
            for sample, content, expected in zip(
                samples.tolist(), contents, rows["crc32"].tolist(), strict=True
            ):
                if zlib.crc32(content) != expected:
                    raise self._corrupt(sample, "its bytes do not have the checksum of the index")
        return [bytes(content) for content in contents]

    def stored(
        self, samples: Samples, views: Samples | None = None
    ) -> Shaped[Tensor, "batch channels height width"]:
        """Arrays as they are stored. In a set with two views, `views` chooses one per sample: 0 as it is, 1 mirrored.

        Raises CorruptSampleError for the first sample that cannot be read.
        """
        batch = np.empty((len(samples), *self.row_shape), self.index.contents.dtype)
        if self.is_array and not self.reading.checksums:
            self._read_arrays(samples, views, batch)
        else:
            chosen = np.zeros_like(samples) if views is None else views
            for place, content in enumerate(self.payloads(samples)):
                batch[place] = self._decoded(int(samples[place]), content, int(chosen[place]))
        rows = torch.from_numpy(batch)
        return rows if self.is_array else rows.permute(0, 3, 1, 2)

    def signals(self, samples: Samples) -> Latents:
        """A batch as float32: images in [-1, 1], or latents as the codec returned them."""
        return self.as_signals(self.stored(samples))

    def as_signals(self, stored: Shaped[Tensor, "batch channels height width"]) -> Latents:
        """Stored arrays as float32, on the device where they are."""
        if stored.dtype == torch.uint8:
            return Latents(bytes_to_signal(stored.contiguous()), None)
        if self.index.contents.has_logvar:
            return Latents(*stored.float().chunk(2, dim=1))
        return Latents(stored.float(), None)

    def labels(self, samples: Samples) -> Int64[Tensor, " batch"] | None:
        """Class numbers; None if the set has no classes."""
        if self.index.contents.classes is None:
            return None
        return torch.from_numpy(self.index.table["label"][samples].astype(np.int64))

    def expect(self, shards: Sequence[int]) -> None:
        """Hint that these shards will be read soon."""
        self.storage.expect([self.names[shard] for shard in shards])

    def _read_arrays(
        self, samples: Samples, views: Samples | None, batch: Shaped[np.ndarray, "batch ..."]
    ) -> None:
        rows = self.index.table[samples]
        if not rows["length"].all():
            unreadable = int(samples[rows["length"] == 0][0])
            raise self._corrupt(unreadable, "it could not be read when its tar was indexed")
        # the array is the end of the payload; its views follow each other
        begins = rows["offset"] + rows["length"] - self.index.contents.views * self.row_bytes
        if views is not None:
            begins = begins + views * self.row_bytes
        target = batch.reshape(-1).view(np.uint8).data
        starts = range(0, len(target), self.row_bytes)
        places = zip(self._names_of(samples), begins.tolist(), starts, strict=True)
        self.storage.read_into(
            [Read(name, begin, target[start : start + self.row_bytes]) for name, begin, start in places]
        )

    def _decoded(self, sample: int, content: bytes, view: int) -> Stored:
        if self.is_array:
            begin = len(content) - (self.index.contents.views - view) * self.row_bytes
            array = np.frombuffer(content, self.index.contents.dtype, math.prod(self.row_shape), begin)
            return array.reshape(self.row_shape)
        try:
            with faults_of_file():
                pixels = self._pixels(content)
        except UnusableImageError as error:
            raise self._corrupt(sample, f"it cannot be decoded: {error}") from error
        if pixels.shape[:2] != self.row_shape[:2]:
            found, expected = (shape_text(shape[:2]) for shape in (pixels.shape, self.row_shape))
            raise self._corrupt(sample, f"it is {found} where the set is {expected}")
        return pixels.reshape(self.row_shape)

    def _pixels(self, content: bytes) -> np.ndarray:
        """A picture in the set's mode; one that another program wrote is converted as lediflow.prepare does."""
        mode = PILLOW_MODES[self.index.contents.mode]
        if self.is_ours:
            image = Image.open(BytesIO(content))
            if image.mode == mode:
                return np.asarray(image)
        return np.asarray(opaque_srgb(decoded_photograph(content).image).convert(mode))

    def name_of(self, sample: int) -> str:
        """A sample and its shard, for messages."""
        one = np.array([sample])
        return f"sample {self.keys(one)[0]} of {self.index.root}/{self._names_of(one)[0]}"

    def _corrupt(self, sample: int, reason: str) -> CorruptSampleError:
        return CorruptSampleError(sample, self.name_of(sample), reason)

    def _names_of(self, samples: Samples) -> list[str]:
        return [self.names[shard] for shard in self.index.shard_of(samples).tolist()]

    def _check_copy(self, name: str, path: Path) -> None:
        shard = next(shard for shard in self.index.shards if shard.name == name)
        if path.stat().st_size != shard.bytes:
            raise OSError(f"the copy has {path.stat().st_size} bytes, the index says {shard.bytes}")
        if self.reading.checksums and sha256_of(path) != shard.sha256:
            raise OSError("the copy does not have the hash of the index")
