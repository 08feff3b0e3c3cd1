"""The loaders that loader.py compares: each yields shuffled batches of arrays from the same samples.

A loader has a function `convert` from our tars to its own format (None if it reads them directly) and `batches`, an
endless iterator of arrays. `python tools/bench/loaders.py` with a JSON object measures one loader in its own process
and prints the result, so that loaders do not affect each other.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from lediflow.compat import fix_torchvision
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream

BATCH = 64
WARMUP_BATCHES = 40
SHUFFLE_BUFFER = 1000  # webdataset's; the others shuffle in blocks of their own


@dataclass(frozen=True)
class Loader:
    """How one library loads batches."""

    package: str
    batches: Callable[[Path, int], Iterator[Any]]  # (folder, workers)
    convert: Callable[[Path, Path], None] | None = None  # (our tars, its own folder)

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def lediflow_batches(folder: Path, workers: int) -> Iterator[Any]:
    """Our stream, with threads as workers; with 0 workers one thread loads while the caller waits.

    Pictures are decoded at every use, as by the other loaders.
    """
    config = DataConfig(path=str(folder), threads=max(workers, 1), decoded_gib=0)
    options: dict[str, Any] = {} if workers else {"batches_ahead": 0}
    stream = SampleStream(
        ShardReader.open(folder), config, seed=0, micro_batch=BATCH, global_batch=BATCH, **options
    )
    while True:
        yield stream.next_stored().stored


def webdataset_batches(folder: Path, workers: int) -> Iterator[Any]:
    """The usual pipeline: shuffled shards, a shuffle buffer, decoding, batching; processes as workers."""
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(
        urls, shardshuffle=len(urls), nodesplitter=webdataset.split_by_node, empty_check=False
    )
    dataset = dataset.shuffle(SHUFFLE_BUFFER).decode("rgb8").to_tuple("npy;jpg").batched(BATCH).repeat()
    return (batch[0] for batch in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers))


def litdata_convert(tars: Path, folder: Path) -> None:
    import litdata

    litdata.optimize(payload_of, [*enumerate_payloads(tars)], str(folder), chunk_bytes="64MB", num_workers=1)


def enumerate_payloads(tars: Path) -> Iterator[tuple[str, int]]:
    return ((str(tars), number) for number in range(len(ShardReader.open(tars))))


def payload_of(place: tuple[str, int]) -> bytes:
    return opened(place[0]).payload(place[1])


_readers: dict[str, ShardReader] = {}


def opened(folder: str) -> ShardReader:
    return _readers.setdefault(folder, ShardReader.open(folder))


def litdata_batches(folder: Path, workers: int) -> Iterator[Any]:
    import litdata

    class Decoded(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return decoded(super().__getitem__(index))

    dataset = Decoded(str(folder), shuffle=True)
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
    while True:
        yield from loader


def mosaic_convert(tars: Path, folder: Path) -> None:
    fix_torchvision()
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"payload": "bytes"}, size_limit="64mb") as writer:
        for place in enumerate_payloads(tars):
            writer.write({"payload": payload_of(place)})


def mosaic_batches(folder: Path, workers: int) -> Iterator[Any]:
    fix_torchvision()
    from streaming import StreamingDataset

    class Decoded(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return decoded(super().__getitem__(index)["payload"])

    dataset = Decoded(local=str(folder), shuffle=True, batch_size=BATCH)
    loader: Iterable[Any] = torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=workers)
    while True:
        yield from loader


def decoded(content: bytes) -> np.ndarray:
    """Decode an array, or a picture to its pixels."""
    if content[:6] == b"\x93NUMPY":
        return np.load(BytesIO(content))
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


LOADERS = {
    "lediflow": Loader("lediflow", lediflow_batches),
    "webdataset": Loader("webdataset", webdataset_batches),
    "litdata": Loader("litdata", litdata_batches, litdata_convert),
    "mosaicml-streaming": Loader("streaming", mosaic_batches, mosaic_convert),
}


def measured(name: str, folder: Path, workers: int, seconds: float) -> dict[str, float]:
    """Samples and megabytes per second, and the peak memory of this process and its workers."""
    memory = PeakMemory()
    batches = LOADERS[name].batches(folder, workers)
    for _ in range(WARMUP_BATCHES):
        next(batches)
    count, size, started = 0, 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        batch = next(batches)
        count += len(batch)
        size += batch.nbytes
    return {"samples/s": count / elapsed, "MB/s": size / elapsed / 1e6, "peak MiB": memory.peak / 2**20}


class PeakMemory(threading.Thread):
    """Thread that samples the resident memory of this process and its children, and keeps the maximum."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.start()

    def run(self) -> None:
        this = psutil.Process()
        while True:
            self.peak = max(self.peak, sum(map(resident_bytes, [this, *this.children(recursive=True)])))
            time.sleep(0.1)


def resident_bytes(process: psutil.Process) -> int:
    """Memory of a process without shared pages; 0 if it has ended."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return memory.rss - memory.shared


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "convert" in asked:
        convert = LOADERS[asked["convert"]].convert
        assert convert is not None  # loader.py asks only loaders with a format of their own
        convert(Path(asked["tars"]), Path(asked["folder"]))
    else:
        found = measured(asked["name"], Path(asked["folder"]), asked["workers"], asked["seconds"])
        print(json.dumps(found), flush=True)
