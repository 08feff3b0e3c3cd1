"""The paper's table of times from the results of tools/bench/sampling.py: milliseconds per image by component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lediflow.errors import UserError
from pages.markdown import digits, table
from pages.stored import Results, bench, by_key, results
from pages.stored import place as where

CHAINS = (
    "bench_sampling_one_h200",
    "bench_sampling_batch_h200",
    "bench_sampling_rgb_one_h200",
    "bench_sampling_rgb_h200",
)
DECODING = "bench_decoding_h200"
HEADS = [
    "model",
    "batch",
    "method",
    "solver",
    "NFE",
    "sampler",
    "decoder",
    "flow",
    "chain",
    "FM / LeDiFlow",
    "with SD2-VAE",
]
FM, LEDIFLOW = "FM", "LeDiFlow"
PRIOR = ("sampler", "decoder")  # parts of a chain that starts from a learned prior


def block(root: Path) -> str:
    """The table of all files."""
    return "\n".join(table(HEADS, lines(root)))


def lines(root: Path) -> list[list[str]]:
    """Rows of the table, file by file."""
    codecs = rows_of(root, DECODING)
    return [line for name in CHAINS for line in lines_of(rows_of(root, name), codecs)]


def lines_of(rows: list[Results], codecs: list[Results]) -> list[list[str]]:
    """The chains of a file, which were measured in turns."""
    chains = sorted((row for row in rows if row["part"] == "chain"), key=place)
    totals = by_key(chains, place, "ms/img")
    return [line_of(chain, rows, totals, codecs) for chain in chains]


def rows_of(root: Path, name: str) -> list[Results]:
    found: list[Results] = results(root / bench(name))["rows"]
    return found


def place(row: Results) -> tuple[Any, ...]:
    return row["model"], row["batch"], row["solver"], row["method"]


def line_of(
    chain: Results, rows: list[Results], totals: dict[tuple[Any, ...], float], codecs: list[Results]
) -> list[str]:
    """A chain by component, its gain over flow matching by the same solver, and its time with the codec's decoder."""
    model, batch, solver, method = place(chain)
    same = [row for row in rows if (row["model"], row["batch"], row["method"]) == (model, batch, method)]
    parts = by_key((row for row in same if row["part"] in PRIOR), lambda row: row["part"], "ms/img")
    flows = by_key((row for row in same if row["part"] == "flow"), lambda row: row["solver"], "ms/img")
    if solver not in flows or (method == LEDIFLOW and len(parts) < len(PRIOR)):
        raise UserError(
            f"{where(chain)}: the chain's flow, sampler or decoder was not measured; measure it again"
        )
    rival = totals.get((model, batch, solver, FM))
    gain = f"{rival / chain['ms/img']:.2f}" if method == LEDIFLOW and rival else ""
    decode = decoding(codecs, batch) if chain["space"] == "latents" else None
    times = [*map(parts.get, PRIOR), flows[solver], chain["ms/img"]]
    whole = chain["ms/img"] + decode if decode else None
    return [model, str(batch), method, solver, str(chain["NFE"]), *map(digits, times), gain, digits(whole)]


def decoding(codecs: list[Results], batch: int) -> float | None:
    """Milliseconds per image of SD2's decoder as pipelines call it."""
    wanted = {
        "codec": "sd2_vae", "batch": batch, "precision": "bfloat16", "layout": "channels last", "runtime": "eager",
    }  # fmt: skip
    found = [row["ms/img"] for row in codecs if wanted.items() <= row.items()]
    return found[0] if found else None
