"""The tables that sampling.py prints, made from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chains import FM, LEDIFLOW
from common import Row, shown

from lediflow.text import aligned_table

SETTING = ("model", "batch", "method", "part", "solver", "NFE")  # what a part is, whatever the runtime
TIMES = ("p50 ms", "p95 ms", "ms/img")
PART_COLUMNS = (
    *SETTING,
    "runtime",
    "precision",
    *TIMES,
    "x eager",
    "peak GiB",
    "first call, s",
    "rounds",
    "error",
)
CODEC_COLUMNS = ("codec", "batch", "side", "precision", "layout", "runtime", *TIMES, "rounds", "error")
START_COLUMNS = ("model", "runtime", "caches", "imports s", "models s", "image s", "total s", "error")
COMPONENTS = ("sampler", "decoder", "flow", "codec")
FACTOR = f"{FM} / {LEDIFLOW}"
PAPER_COLUMNS = ("model", "method", "solver", "NFE", *COMPONENTS, "total", FACTOR)


def summary(runs: Sequence[Sequence[Row]], decode_by: str) -> str:
    """The paper's tables, then codecs and first images, of the rows of one run or of several.

    A paper's table has the chains of one run, because those were measured in turns; the time of the codec is from the
    rows of the runtime `decode_by` in any run.
    """
    rows = [row for run in runs for row in run]
    codecs = [row for row in rows if row.get("part") == "codec"]
    starts = [row for row in rows if row.get("part") == "first image"]
    tables = [
        *(paper_table(run, *condition, codecs, decode_by) for run in runs for condition in conditions(run)),
        titled("Codecs", columns(CODEC_COLUMNS, codecs)),
        titled("Seconds until the first image", columns(START_COLUMNS, starts)),
    ]
    return "\n\n".join(table for table in tables if table)


def titled(title: str, table: str) -> str:
    """The table under its title; "" if it has no rows."""
    return f"{title}\n\n{table}" if table else ""


def columns(heads: Iterable[str], rows: Iterable[Row]) -> str:
    """These columns of the rows, without those that are empty; "" without rows."""
    rows = list(rows)
    kept = [head for head in heads if any(row.get(head) not in (None, "") for row in rows)]
    if not kept:
        return ""
    cells = [kept, *([shown(row.get(head)) for head in kept] for row in rows)]
    right = [any(is_number(row.get(head)) for row in rows) for head in kept]
    return aligned_table(cells, right)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def table_of_parts(rows: Sequence[Row]) -> str:
    """Chains and their parts, with the factor between a runtime and the eager one."""
    chains = [row for row in rows if "method" in row]
    eager = {setting(row): row["p50 ms"] for row in chains if row["runtime"] == "eager" and "p50 ms" in row}
    with_factor = [
        {**row, "x eager": eager[setting(row)] / row["p50 ms"]}
        if setting(row) in eager and "p50 ms" in row
        else row
        for row in chains
    ]
    return columns(PART_COLUMNS, with_factor)


def setting(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in SETTING)


def conditions(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Runtimes and batch sizes for which chains of both methods were measured."""
    found: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row.get("part") == "chain":
            found.setdefault((row["runtime"], row["batch"]), set()).add(row["method"])
    return [condition for condition, methods in found.items() if methods == {FM, LEDIFLOW}]


def paper_table(rows: Sequence[Row], runtime: str, batch: int, codecs: Sequence[Row], decode_by: str) -> str:
    """Milliseconds per image as in the paper's table 1, by component: a row for each model, method and solver."""
    parts = [row for row in rows if "space" in row and (row["runtime"], row["batch"]) == (runtime, batch)]
    chains = [row for row in parts if row["part"] == "chain"]
    lines = [paper_line(chain, parts, codec_time(chain, codecs, decode_by)) for chain in chains]
    baselines = {(line["model"], line["solver"]): line["total"] for line in lines if line["method"] == FM}
    for line in lines:
        if line["method"] == LEDIFLOW and (baseline := baselines.get((line["model"], line["solver"]))):
            line[FACTOR] = baseline / line["total"]
    lines.sort(key=lambda line: (line["model"], line["solver"], line["method"] != FM))
    title = f"Milliseconds per image, {runtime}, {chains[0]['precision']}, batch {batch}"
    return titled(title, columns(PAPER_COLUMNS, lines))


def paper_line(chain: Row, parts: Sequence[Row], codec: float | None) -> Row:
    """A chain by component; the total is that of the whole chain, and the codec's where there is one."""
    about = {name: chain[name] for name in ("model", "method", "solver", "NFE")}
    line: Row = {**about, "codec": codec, "total": chain["ms/img"] + (codec or 0.0)}
    same = [row for row in parts if (row["model"], row["method"]) == (chain["model"], chain["method"])]
    for row in same:
        is_flow = row["part"] == "flow" and (row["solver"], row["NFE"]) == (chain["solver"], chain["NFE"])
        if is_flow or row["part"] in ("sampler", "decoder"):
            line[row["part"]] = row["ms/img"]
    return line


def codec_time(chain: Row, codecs: Sequence[Row], decode_by: str) -> float | None:
    """Milliseconds per image of Stable Diffusion 2's decoder after this chain, in its precision, channels last.

    None for models of pixels, and where the codec was not measured.
    """
    if chain["space"] == "pixels":
        return None
    wanted = {
        "codec": "sd2_vae",
        "batch": chain["batch"],
        "precision": chain["precision"],
        "layout": "channels last",
        "runtime": decode_by,
    }
    found = [row["ms/img"] for row in codecs if wanted.items() <= row.items()]
    return found[0] if found else None
