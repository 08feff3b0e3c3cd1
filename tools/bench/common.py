"""Common code of the benchmarks: timing on any device, tables, and results with their provenance.

Times are medians in milliseconds. On a GPU each call is between two CUDA events, and the L2 cache is overwritten
before it, as in `triton.testing.do_bench`, so that inputs are read from memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lediflow.evaluation.results import birth_certificate, write_results

LEAST_CALLS = 5
CACHE_BYTES = 256 * 2**20  # more than any GPU's L2

Row = dict[str, Any]


def command_line(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the docstring of a benchmark as its help."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def measure(
    fn: Callable[[], Any], *, device: torch.device | str, warmup: int = 3, seconds: float = 1.0
) -> float:
    """Median milliseconds per call: `warmup` calls (at least one) first, then calls for about `seconds`."""
    return statistics.median(laps_of(fn, device=torch.device(device), warmup=warmup, seconds=seconds))


def laps_of(fn: Callable[[], Any], *, device: torch.device, warmup: int, seconds: float) -> list[float]:
    """Milliseconds of each call, after the `warmup` calls (at least one)."""
    for _ in range(max(warmup, 1)):
        estimate = seconds_taken(fn, device)
    calls = max(LEAST_CALLS, round(seconds / max(estimate, 1e-9)))
    return cuda_laps(fn, calls, device) if device.type == "cuda" else cpu_laps(fn, calls)


def seconds_taken(call: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock time of a call, including its work on the device."""
    wait_for(device)
    started = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_laps(fn: Callable[[], Any], calls: int) -> list[float]:
    """Milliseconds of each call, by the wall clock."""
    laps = []
    for _ in range(calls):
        started = time.perf_counter()
        fn()
        laps.append(1000 * (time.perf_counter() - started))
    return laps


def cuda_laps(fn: Callable[[], Any], calls: int, device: torch.device) -> list[float]:
    """Milliseconds of each call, by CUDA events; the host synchronises once, at the end."""
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device)
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(calls)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        cache.zero_()
        start.record()
        fn()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]


def matmul_peak(device: torch.device | str, dtype: torch.dtype, size: int = 8192) -> float:
    """FLOP/s of a size^3 matrix product: the peak that the device reaches in practice."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / (measure(lambda: left @ right, device=device) / 1000)


def certificate() -> dict[str, Any]:
    """Command, commit, hardware, date and versions of the numbers that this process measures."""
    return {**birth_certificate(seed=0), "cuda": torch.version.cuda}


def machine() -> str:
    """Hardware, versions, commit and date in one line."""
    made = certificate()
    hardware, versions = made["hardware"], made["versions"]
    where = hardware["gpus"][0] if hardware["gpus"] else f"{hardware['processor']}, {hardware['cores']} cores"
    packages = [f"{name} {versions[name]}" for name in ("torch", "natten") if name in versions]
    cuda = [f"CUDA {made['cuda']}"] if made["cuda"] else []
    return ", ".join([where, *packages, *cuda, f"commit {short(made['commit'])}", made["date"]])


def short(commit: str) -> str:
    """The first twelve digits of a commit, with -dirty if files differ from it."""
    digits, dash, dirty = commit.partition("-")
    return digits[:12] + dash + dirty


def table(rows: Sequence[Row]) -> str:
    """Rows as an aligned Markdown table; a missing value is an empty cell."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads, *([shown(row.get(head)) for head in heads] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def shown(value: Any) -> str:
    """A value as a table shows it: numbers with three significant digits, "" for None."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def write_json(path: str | Path, rows: Sequence[Row]) -> Path:
    """Write the rows and their provenance to a file, atomically."""
    return write_results(path, {"rows": list(rows)}, certificate())
