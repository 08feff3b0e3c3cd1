"""Compare our stream with other loaders: latents and 256-pixel JPEGs in batches of 64, from page cache.

    python tools/bench/loader.py                                      every loader that is installed; 0, 1, 2 workers
    python tools/bench/loader.py --latents 20000 --pictures 4000 --workers 0 1 2 4 --output results/bench_loader.json
    python tools/bench/loader.py --picture-shards SHARDS              real JPEG shards instead of generated ones

All read the same samples in one run; for loaders with another format the samples are converted first. litdata and
mosaicml-streaming are included if they are installed (`pip install litdata mosaicml-streaming`). Latents are 16 KB:
mean and log-variance of a 256-pixel image, float16. Each number is measured in its own process; memory is its peak,
with workers and without pages shared with other processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import Row, command_line, machine, table, write_json
from loaders import LOADERS
from PIL import Image

from lediflow.data.photograph import picture_bytes
from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample, write_shard

LATENT_SHAPE = (8, 32, 32)  # mean and log-variance of Stable Diffusion's autoencoder at 256 pixels
PICTURE_SIDE = 256
SHARDS = 5


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    with TemporaryDirectory(dir=chosen.folder) as scratch:
        rows = [
            row
            for name, folder in sets(chosen, Path(scratch)).items()
            for row in compared(name, folder, chosen, Path(scratch))
        ]
    print(f"{machine()}\nbatches of 64 from page cache\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--latents", type=int, default=20_000, help="number of latents; 0: none")
    parser.add_argument("--pictures", type=int, default=2_000, help="number of generated JPEGs; 0: none")
    parser.add_argument("--picture-shards", type=Path, help="folder of JPEG shards to read instead")
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=[*LOADERS])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per number")
    parser.add_argument("--folder", help="folder for the samples; default: the system's temporary folder")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def sets(chosen: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """Name -> folder of tars; generated sets are written."""
    found: dict[str, Path] = {}
    if chosen.latents:
        found["latents"] = written(scratch / "latents", latents(chosen.latents), chosen.latents, "npy")
    if chosen.picture_shards:
        found["pictures"] = chosen.picture_shards
    elif chosen.pictures:
        found["pictures"] = written(scratch / "pictures", pictures(chosen.pictures), chosen.pictures, "jpg")
    return found


def latents(count: int) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    for _ in range(count):
        buffer = BytesIO()
        np.save(buffer, random.standard_normal(LATENT_SHAPE).astype(np.float16))
        yield buffer.getvalue()


def pictures(count: int) -> Iterator[bytes]:
    """Soft patches of colour with a little grain: JPEGs of about the size of photographs."""
    random = np.random.default_rng(0)
    for _ in range(count):
        patches = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(
            patches.resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC), dtype=float
        )
        grain = random.normal(0, 4, smooth.shape)
        yield picture_bytes(Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)), "jpg")


def written(folder: Path, payloads: Iterator[bytes], count: int, extension: str) -> Path:
    """Tars of equal size, in webdataset's layout."""
    folder.mkdir()
    ends = np.linspace(0, count, SHARDS + 1).astype(int).tolist()
    for number, (begin, end) in enumerate(pairwise(ends)):
        samples = (Sample(key, -1, next(payloads), {"label": None}) for key in range(begin, end))
        write_shard(folder / f"samples-{number:06d}.tar", samples, extension)
    ShardReader.open(folder)  # its index
    return folder


def compared(name: str, folder: Path, chosen: argparse.Namespace, scratch: Path) -> list[Row]:
    """A row for each loader and number of workers; `ratio` is against webdataset's best on this set."""
    rows: list[Row] = []
    for loader in chosen.loaders:
        if not LOADERS[loader].is_installed:
            print(f"{loader} is not installed: skipped", file=sys.stderr)
            continue
        source = folder
        if LOADERS[loader].convert:
            source = scratch / f"{name}-{loader}"
            asked(convert=loader, tars=str(folder), folder=str(source))
        for workers in chosen.workers:
            found = json.loads(
                asked(name=loader, folder=str(source), workers=workers, seconds=chosen.seconds)
            )
            rows.append({"samples": name, "loader": loader, "workers": workers, **found})
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr)
    best = max((row["samples/s"] for row in rows if row["loader"] == "webdataset"), default=None)
    return [row | {"ratio": row["samples/s"] / best} if best else row for row in rows]


def asked(**request: object) -> str:
    """Run loaders.py in its own process; the last line that it prints."""
    script = Path(__file__).with_name("loaders.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps(request)], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip().rpartition("\n")[-1]


if __name__ == "__main__":
    main()
