"""Measure implementations of CMMD on two sets of unit vectors: seconds, peak memory, and values.

    python tools/bench/cmmd.py --count 3000                                             a quick look
    python tools/bench/cmmd.py --output results/bench_cmmd.json                         30,000 vectors of CLIP's size
    python tools/bench/cmmd.py --device cuda --output results/bench_cmmd_h100.json

"exact" and "streaming" are this package's, with their standard errors; "blocked" is the definition in plain PyTorch,
float64, 1024 rows at a time; "clip-mmd" is that package unchanged (`mmd_efficient`, low_mem: float32), omitted if it is
not installed. Each runs once in its own process, after a small warm-up call. "MiB" is the peak memory, with both sets
(and PyTorch itself, about 300); on a GPU, of device memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, util

import torch
from common import Row, command_line, machine, seconds_taken, table, write_json
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd_estimate
from lediflow.evaluation.tiles import whole

BLOCK, BATCH = 1024, 1000  # block size of "blocked"; batch size of "streaming"
WARM_UP = 100  # embeddings in the warm-up call; the sets are not smaller


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    if chosen.alone:
        print(json.dumps(measured(chosen)))
        return
    if is_missing := "clip-mmd" in chosen.ways and util.find_spec("clip_mmd") is None:
        print("clip-mmd is not installed: continuing without it (pip install --no-deps clip-mmd)")
    rows = [in_its_own_process(chosen, way) for way in chosen.ways if not (is_missing and way == "clip-mmd")]
    add_ratios(rows)
    print(f"{machine()}\n{chosen.count} x {chosen.count} x {chosen.dim} on {chosen.device}\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--count", type=int, default=30_000, help="vectors of each set")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def in_its_own_process(chosen: argparse.Namespace, way: str) -> Row:
    """A row of the table, from a separate process, so that implementations do not share memory or caches."""
    given = {name: getattr(chosen, name) for name in ("count", "dim", "threads", "device")} | {"alone": way}
    flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    ended = subprocess.run([sys.executable, __file__, *flags], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def measured(chosen: argparse.Namespace) -> Row:
    """Measure one implementation in this process."""
    torch.set_num_threads(chosen.threads)
    x, y = (drawn(chosen, seed).to(chosen.device) for seed in (0, 1))
    way = WAYS[chosen.alone]
    way(x[:WARM_UP], y[:WARM_UP])
    results: list[Row] = []
    seconds = seconds_taken(lambda: results.append(way(x, y)), torch.device(chosen.device))
    return {"way": chosen.alone, "seconds": seconds, "MiB": memory(chosen.device) / 2**20, **results[0]}


def drawn(chosen: argparse.Namespace, seed: int) -> Tensor:
    """Float32 unit vectors around two slightly different means, like features of two sets of images."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.ones(chosen.dim) + 0.1 * seed * torch.randn(chosen.dim, generator=generator)
    vectors = torch.randn(chosen.count, chosen.dim, generator=generator).add_(mean)
    return vectors.div_(vectors.norm(dim=1, keepdim=True))  # in place, for a low memory peak


def memory(device: str) -> int:
    """Peak memory of this process, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exact(x: Tensor, y: Tensor) -> Row:
    estimate = cmmd_estimate(whole(x), whole(y), Group())
    return {"biased": estimate.biased, "unbiased": estimate.unbiased, "+-": estimate.standard_error}


def streaming(x: Tensor, y: Tensor) -> Row:
    sets = [StreamingCMMD(z.shape[1], z.device) for z in (x, y)]
    for stream, z in zip(sets, (x, y), strict=True):
        for batch in z.split(min(BATCH, len(z) // stream.groups)):
            stream.update(batch)
    ours, theirs = sets
    values = ours.distance(theirs).value, ours.unbiased_distance(theirs).value
    return {"biased": values[0], "unbiased": values[1], "+-": ours.standard_error(theirs)}


def blocked(x: Tensor, y: Tensor) -> Row:
    """The definition; only the biased value, and no interval."""

    def mean(a: Tensor, b: Tensor) -> float:
        total = torch.zeros((), dtype=torch.float64, device=a.device)
        for rows in a.split(BLOCK):
            for columns in b.split(BLOCK):
                total += torch.exp(-torch.cdist(rows.double(), columns.double()).square() / 200).sum()
        return total.item() / (len(a) * len(b))

    return {"biased": 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))}


def clip_mmd(x: Tensor, y: Tensor) -> Row:
    value = import_module("clip_mmd.calculation").mmd_efficient(x, y, device=x.device, low_mem=True)
    return {"biased": float(value)}


def add_ratios(rows: list[Row]) -> None:
    """Add the ratios of seconds to those of this package."""
    seconds = {row["way"]: row["seconds"] for row in rows}
    for ours in ("exact", "streaming"):
        for row in rows:
            if ours in seconds and row["way"] in ("blocked", "clip-mmd"):
                row[f"/ {ours}"] = row["seconds"] / seconds[ours]


WAYS: dict[str, Callable[[Tensor, Tensor], Row]] = {
    "exact": exact,
    "streaming": streaming,
    "blocked": blocked,
    "clip-mmd": clip_mmd,
}


if __name__ == "__main__":
    main()
