"""Tables of docs/performance_gpus.md: speed, memory and numbers of one GPU and of several of the same host.

A file's `results` hold what was measured; efficiencies and differences are computed here.

bench_several_training   `rows` of tools/bench/training.py for one and for several GPUs
bench_several_run        `starts` and `saves` of one run of the training command that was continued on other GPUs
bench_several_losses     `experiments`: the logged losses by images seen, of one process and of others
bench_several_data       `rows` of encode and evaluate: images per second, and digests of what they made
"""

from __future__ import annotations

from collections.abc import Callable

from pages.markdown import digits, table
from pages.stored import Results

WEAK_GOALS = {2: 97.0, 8: 95.0}  # GPUs -> % of so many times one GPU's speed, with the same batch a GPU
REFERENCE = "one process"  # the losses that the others are compared with

TRAINING_HEADS = [
    "model", "engine", "GPUs", "batch a GPU", "ms", "img/s", "efficiency %", "goal", "collectives ms", "GiB a GPU",
]  # fmt: skip


def training_lines(rows: list[Results]) -> list[str]:
    """Whole steps: one GPU, then several with the same batch a GPU, then with the same batch in all."""
    return table(TRAINING_HEADS, [training_line(row, rows) for row in sorted(rows, key=place)])


def place(row: Results) -> tuple[str, int, int, str]:
    """Model by model; strong scaling, which has smaller batches a GPU, after weak scaling."""
    return row["model"] != "paper_sdv", row["ranks"], -row["batch"], row["engine"]


def training_line(row: Results, rows: list[Results]) -> list[str]:
    found = efficiency(row, rows)
    return [
        row["model"],
        row["engine"],
        str(row["ranks"]),
        str(row["batch"] // row["ranks"]),
        digits(row["ms"]),
        digits(row["img/s"]),
        "" if found is None else f"{found:.1f}",
        goal(row, rows, found),
        digits(row.get("collectives ms")),
        digits(row["peak GiB"]),
    ]


def efficiency(row: Results, rows: list[Results]) -> float | None:
    """Images per second in % of one GPU's with this engine times the number of GPUs; None for one GPU.

    One GPU has the batch that each of several has (weak scaling), or else the batch that they have together (strong).
    """
    alone = one_gpu(row, rows, row["batch"] // row["ranks"]) or one_gpu(row, rows, row["batch"])
    if row["ranks"] == 1 or alone is None:
        return None
    return float(100 * row["img/s"] / (row["ranks"] * alone["img/s"]))


def one_gpu(row: Results, rows: list[Results], batch: int) -> Results | None:
    wanted = {
        "model": row["model"],
        "stage": row["stage"],
        "engine": row["engine"],
        "ranks": 1,
        "batch": batch,
    }
    return next((other for other in rows if wanted.items() <= other.items()), None)


def goal(row: Results, rows: list[Results], found: float | None) -> str:
    """Whether weak scaling is as good as was asked; "" where nothing was asked."""
    least = WEAK_GOALS.get(row["ranks"])
    if found is None or least is None or one_gpu(row, rows, row["batch"] // row["ranks"]) is None:
        return ""
    return f"{least:g}: {'met' if found >= least else 'missed'}"


START_HEADS = ["start", "GPUs", "images", "micro-batch", "img/s", "GiB a GPU", "continued in s"]
SAVE_HEADS = ["saved by", "saves", "seconds", "training waited, ms"]


def run_lines(results: Results) -> list[str]:
    """The starts of one run, and its saves by the number of ranks that wrote them."""
    starts = [
        [
            str(number),
            str(start["ranks"]),
            f"{start['from']:,} to {start['to']:,}",
            digits(start["micro_batch"]),
            digits(start.get("img/s")),
            digits(start["peak GiB"]),
            digits(start.get("resume_seconds")),
        ]
        for number, start in enumerate(results["starts"], 1)
    ]
    saves = [
        [
            f"{ranks} GPU{'s' * (ranks > 1)}",
            str(len(of)),
            span(of, "seconds"),
            span(of, "waited_seconds", 1e3),
        ]
        for ranks in sorted({save["ranks"] for save in results["saves"]})
        if (of := [save for save in results["saves"] if save["ranks"] == ranks])
    ]
    return [*table(START_HEADS, starts), "", *table(SAVE_HEADS, saves)]


def span(rows: list[Results], column: str, factor: float = 1) -> str:
    """Smallest and largest value."""
    values = [factor * row[column] for row in rows]
    low, high = (digits(float(value)) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


LOSS_HEADS = ["experiment", "compared with one process", "steps", "largest relative difference of a loss"]


def losses_lines(experiments: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """How far the logged losses of each variant are from those of one process, by experiment."""
    body = [
        [experiment, variant, str(len(values)), f"{difference(values, variants[REFERENCE]):.1e}"]
        for experiment, variants in experiments.items()
        for variant, values in variants.items()
        if variant != REFERENCE
    ]
    return table(LOSS_HEADS, body)


def difference(values: dict[str, float], reference: dict[str, float]) -> float:
    """Largest relative difference; ValueError if the two have not logged the same steps."""
    if values.keys() != reference.keys():
        raise ValueError(f"losses of {len(values)} steps are compared with {len(reference)} others")
    return max(abs(loss - reference[seen]) / abs(reference[seen]) for seen, loss in values.items())


DATA_HEADS = ["command", "images", "GPUs", "img/s", "efficiency %", "seconds in all", "the same result"]


def data_lines(rows: list[Results]) -> list[str]:
    """Encode and evaluate on one GPU and on several, and whether they made the same."""
    return table(DATA_HEADS, [data_line(row, rows) for row in rows])


def data_line(row: Results, rows: list[Results]) -> list[str]:
    alone = next(other for other in rows if (other["command"], other["ranks"]) == (row["command"], 1))
    is_alone = row["ranks"] == 1
    rate = 100 * row["img/s"] / (row["ranks"] * alone["img/s"])
    return [
        row["command"],
        f"{row['images']:,}",
        str(row["ranks"]),
        digits(row["img/s"]),
        "" if is_alone else f"{rate:.0f}",
        digits(float(row["seconds"])),
        "" if is_alone else "yes" if row["digest"] == alone["digest"] else "no",
    ]


# by the beginning of a file's name
LINES: dict[str, Callable[[Results], list[str]]] = {
    "bench_several_training_": lambda results: training_lines(results["rows"]),
    "bench_several_run_": run_lines,
    "bench_several_losses_": lambda results: losses_lines(results["experiments"]),
    "bench_several_data_": lambda results: data_lines(results["rows"]),
}
