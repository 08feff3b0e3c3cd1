"""Pictures of a set, each decoded once and then kept in host memory.

Decoding a PNG of 64 x 64 pixels takes 140 us of a CPU core, copying its pixels 3 us (docs/performance_data.md), and a
part of the 140 us holds the interpreter lock, for which the training loop then waits. A run shows each picture many
times, so pictures are decoded in the first epoch only, if all of them fit in `data.decoded_gib`.
"""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lediflow.data.shards.reader import ShardReader
from lediflow.host_memory import free_memory

FREE_SHARE = 0.5  # of the free memory, at most, for the pictures of one rank
Samples = Int64[np.ndarray, " batch"]


class DecodedPictures:
    """Reads stored pictures as `reader` does, with the same bits. Thread-safe.

    The table has a row for every sample of the set; the system provides memory for a row when it is first written.
    """

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self.pictures = torch.empty((len(reader), *reader.index.contents.shape), dtype=torch.uint8)
        self.is_decoded = np.zeros(len(reader), dtype=bool)

    def stored(
        self, samples: Samples, views: Samples | None = None
    ) -> UInt8[Tensor, "batch channels height width"]:
        """A new tensor with the pictures; `views` is for sets of arrays and must be None.

        Raises CorruptSampleError for the first sample that cannot be decoded.
        """
        assert views is None, "a set of pictures has one view"
        missing = samples[~self.is_decoded[samples]]
        if len(missing):
            self.pictures.numpy()[missing] = self.reader.stored(missing).numpy()
            # last: from here on other threads read the rows
            self.is_decoded[missing] = True
        return self.pictures.index_select(0, torch.from_numpy(samples))


def decoded_pictures(reader: ShardReader, gib: float) -> DecodedPictures | None:
    """The decoded pictures of a set; None for a set of arrays.

    None also for a set that is larger, decoded, than `gib` or than half of the memory that is free.
    """
    size = len(reader) * reader.row_bytes
    if reader.is_array or size > min(gib * 2**30, FREE_SHARE * free_memory()):
        return None
    return DecodedPictures(reader)
