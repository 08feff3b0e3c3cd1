"""One rank of a run that only reads: `python -m harness.stream_rank OPTIONS`, options as JSON.

Prints one line per micro-batch: [position, key, CRC-32 of the pixels] of each image. The first rank keeps the
stream's state of whole steps in a file, as a checkpoint does. Sleeps after each step, to be killed at leisure.
"""

import json
import sys
import time
import zlib
from pathlib import Path

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream


def main(*, shards, start, state, rank, world_size, micro_batch, global_batch, steps, pause_seconds, **data):
    config = DataConfig(path=shards, **data)
    stream = SampleStream(
        ShardReader.open(shards), config, seed=17, rank=rank, world_size=world_size,
        micro_batch=micro_batch, global_batch=global_batch,
    )  # fmt: skip
    if start:
        stream.load(start)
    saved = Path(state)
    for _ in range(steps):
        for _ in range(stream.accumulation):
            batch = stream.next_batch()
            pixels = (zlib.crc32(image.numpy().tobytes()) for image in batch.images)
            print(json.dumps([*zip(batch.ids.tolist(), batch.keys, pixels, strict=True)]), flush=True)
        if rank == 0:
            partial = saved.with_suffix(".partial")
            partial.write_text(json.dumps(stream.state()))
            partial.replace(saved)
        time.sleep(pause_seconds)
    stream.close()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
