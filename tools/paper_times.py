"""The paper's table of times from the results of tools/bench/sampling.py: milliseconds per image by component."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAINS, DECODING = "bench_sampling_batch_h200", "bench_decoding_h200"
HEADS = [
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

Row = dict[str, Any]


def lines(root: Path) -> list[list[str]]:
    """Rows of the table, batch by batch; [] where nothing has been measured."""
    rows = rows_of(root / f"results/{CHAINS}.json")
    codecs = rows_of(root / f"results/{DECODING}.json")
    chains = sorted((row for row in rows if row["part"] == "chain"), key=place)
    totals = {(row["batch"], row["solver"], row["method"]): row["ms/img"] for row in chains}
    return [line_of(chain, rows, totals, codecs) for chain in chains]


def rows_of(path: Path) -> list[Row]:
    found: list[Row] = json.loads(path.read_text())["results"]["rows"] if path.is_file() else []
    return found


def place(row: Row) -> tuple[Any, ...]:
    return row["batch"], row["solver"], row["method"]


def line_of(
    chain: Row, rows: list[Row], totals: dict[tuple[int, str, str], float], codecs: list[Row]
) -> list[str]:
    """A chain by component, its gain over flow matching by the same solver, and its time with the codec's decoder."""
    batch, solver, method = chain["batch"], chain["solver"], chain["method"]
    same = [row for row in rows if (row["batch"], row["method"]) == (batch, method)]
    parts = {row["part"]: row["ms/img"] for row in same if row["part"] in ("sampler", "decoder")}
    flow = next(row["ms/img"] for row in same if row["part"] == "flow" and row["solver"] == solver)
    rival = totals.get((batch, solver, FM))
    gain = f"{rival / chain['ms/img']:.2f}" if method == LEDIFLOW and rival else ""
    decode = decoding(codecs, batch)
    times = [parts.get("sampler"), parts.get("decoder"), flow, chain["ms/img"]]
    whole = chain["ms/img"] + decode if decode else None
    return [str(batch), method, solver, str(chain["NFE"]), *map(shown, times), gain, shown(whole)]


def decoding(codecs: list[Row], batch: int) -> float | None:
    """Milliseconds per image of SD2's decoder as pipelines call it."""
    wanted = {
        "codec": "sd2_vae", "batch": batch, "precision": "bfloat16", "layout": "channels last", "runtime": "eager",
    }  # fmt: skip
    found = [row["ms/img"] for row in codecs if wanted.items() <= row.items()]
    return found[0] if found else None


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
