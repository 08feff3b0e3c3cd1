"""Compare reading byte ranges with reading whole shards, from a cold disk and from a web server with a delay.

    python tools/bench/reading.py --mib 4 16 64 256 --output results/bench_reading.json

One rank, the only one or one of eight, reads its share of a window of two shards, as training does. Before each
measurement the files are removed from the page cache. The server responds to each request after `--delay-ms`, like an
object store on the local network; it runs on this machine, so its bandwidth is limited by the processor.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import Row, command_line, machine, table, write_json

from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample, write_shard
from lediflow.data.storage import ReadingConfig
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from harness.web import serving  # the tests' own server

SHAPE = (8, 32, 32)
SAMPLE_BYTES = 18_000  # in the tar, with its headers and metadata
WINDOW = 2
SHARDS = 4
BATCH = 64


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    rows: list[Row] = []
    for mib in chosen.mib:
        with TemporaryDirectory(dir=chosen.folder) as scratch:
            folder = written(Path(scratch) / "set", mib)
            for row in readings(folder, mib, chosen):
                rows.append(row)
                print(table([row]).splitlines()[-1], file=sys.stderr)
    print(f"{machine()}\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[4, 16, 64, 256], help="sizes of a shard")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--delay-ms", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit per number")
    parser.add_argument("--folder", help="disk to write on; default: the system's temporary folder")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def written(folder: Path, mib: int) -> Path:
    """Four shards of about `mib` MiB each."""
    folder.mkdir()
    random, per_shard = np.random.default_rng(0), mib * 2**20 // SAMPLE_BYTES
    for number in range(SHARDS):
        keys = range(number * per_shard, (number + 1) * per_shard)
        write_shard(folder / f"{number:06d}.tar", (Sample(k, -1, drawn(random), {}) for k in keys), "npy")
    ShardReader.open(folder)  # its index
    return folder


def drawn(random: np.random.Generator) -> bytes:
    buffer = BytesIO()
    np.save(buffer, random.standard_normal(SHAPE, dtype=np.float32).astype(np.float16))
    return buffer.getvalue()


def readings(folder: Path, mib: int, chosen: argparse.Namespace) -> list[Row]:
    rows = []
    for ranks in chosen.ranks:
        for method in ("ranges", "whole"):
            forget(folder)
            rate = rate_of(str(folder), ranks, method, chosen.seconds)
            rows.append(
                {"from": "cold disk", "shard MiB": mib, "ranks": ranks, "read": method, "samples/s": rate}
            )
        for method in ("ranges", "whole"):
            with serving(folder, chosen.delay_ms / 1000) as server:
                rate = rate_of(server.url, ranks, method, chosen.seconds)
            where = f"http, {chosen.delay_ms:g} ms"
            rows.append({"from": where, "shard MiB": mib, "ranks": ranks, "read": method, "samples/s": rate})
    return rows


def forget(folder: Path) -> None:
    """Remove the files from the page cache."""
    os.sync()
    for path in folder.glob("*.tar"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate_of(where: str, ranks: int, method: str, seconds: float) -> float:
    """Samples per second of rank 0, from its first request to the end of the epoch or of the time limit."""
    reading = ReadingConfig(method=method)
    reader = ShardReader.open(where, reading)
    batch = min(BATCH, max(1, len(reader) // (4 * ranks)))
    config = DataConfig(path=where, shuffle_window=WINDOW, threads=2, reading=reading)
    started, count = time.perf_counter(), 0
    stream = SampleStream(
        reader, config, seed=0, rank=0, world_size=ranks, micro_batch=batch, global_batch=batch * ranks
    )
    for _ in range(len(reader) // (batch * ranks)):
        count += len(stream.next_stored())
        if time.perf_counter() - started > seconds:
            break
    elapsed = time.perf_counter() - started
    threading.Thread(target=stream.close, daemon=True).start()
    return count / elapsed


if __name__ == "__main__":
    main()
