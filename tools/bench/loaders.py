"""Loaders side by side, for loader.py: each turns one set of samples into batches of arrays in shuffled order.

A loader has a `convert` that brings our tars into the form it reads (none where it reads them as they are) and a
`batches` that yields arrays for ever. `python tools/bench/loaders.py` with a JSON object measures one of them in a
process of its own and prints what it found: nothing a loader leaves behind touches the next.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from lediflow.compat import mend_torchvision
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream

BATCH = 64
WARMUP_BATCHES = 40
SHUFFLE_BUFFER = 1000  # webdataset's; the others shuffle in blocks of their own


@dataclass(frozen=True)
class Loader:
    """One library's way."""

    package: str
    batches: Callable[[Path, int], Iterator[Any]]  # (folder, workers)
    convert: Callable[[Path, Path], None] | None = None  # (our tars, its own folder)

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def lediflow_batches(folder: Path, workers: int) -> Iterator[Any]:
    """Ours: threads instead of processes; without any, one thread loads while the caller waits."""
    config = DataConfig(path=str(folder), threads=max(workers, 1), batches_ahead=4 if workers else 0)
    stream = SampleStream(ShardReader.open(folder), config, seed=0, micro_batch=BATCH, global_batch=BATCH)
    while True:
        yield stream.next_stored().stored


def webdataset_batches(folder: Path, workers: int) -> Iterator[Any]:
    """The usual pipeline: shards shuffled, a buffer shuffled, decoded, batched; processes as workers."""
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
    mend_torchvision()
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"payload": "bytes"}, size_limit="64mb") as writer:
        for place in enumerate_payloads(tars):
            writer.write({"payload": payload_of(place)})


def mosaic_batches(folder: Path, workers: int) -> Iterator[Any]:
    mend_torchvision()
    from streaming import StreamingDataset

    class Decoded(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return decoded(super().__getitem__(index)["payload"])

    dataset = Decoded(local=str(folder), shuffle=True, batch_size=BATCH)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=workers)
    while True:
        yield from loader


def decoded(content: bytes) -> np.ndarray:
    """An array or the pixels of a picture."""
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
    """Samples and megabytes a second, and the most memory that this process and its workers took."""
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
    """Looks now and then at the resident memory of this process and its children; the most it saw."""

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
    """Memory that is the process's own; one that has just ended has none."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return memory.rss - memory.shared


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "convert" in asked:
        LOADERS[asked["convert"]].convert(Path(asked["tars"]), Path(asked["folder"]))
    else:
        found = measured(asked["name"], Path(asked["folder"]), asked["workers"], asked["seconds"])
        print(json.dumps(found), flush=True)
