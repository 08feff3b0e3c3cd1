"""The demo's tables: quality and times of both methods, and what each command took."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from lediflow.errors import UserError
from lediflow.evaluation.metrics import Metric, shown_in
from pages.markdown import table
from pages.origins import certificate_line
from pages.stored import Results, alike, place

RESULTS = Path("results/demo.json")


def quality_block(results: Results) -> str:
    """Each number of steps a row, both methods side by side, and where the numbers come from."""
    runs = results["runs"]
    rows = [row for run in runs for row in run["rows"]]
    for line in zip(*(run["rows"] for run in runs), strict=True):
        alike(line, "steps", "nfe")
    shown = [metric for metric in distances() if any(metric.value(row) is not None for row in rows)]
    for metric, row in product(shown, rows):
        if metric.value(row) is None:
            raise UserError(f"{place(row)} has no {metric.name}, which other rows have; measure it again")
    titles = [*(metric.name for metric in shown), "ms/img"]
    heads = [f"{title}: {run['method']}" for title in titles for run in runs]
    body = [table_row(rows, shown) for rows in zip(*(run["rows"] for run in runs), strict=True)]
    origins = [f"- {run['method']}: {certificate_line(run['certificate'])}" for run in runs]
    return "\n".join([*table(["steps", "NFE", *heads], body), "", caption(runs), "", *origins])


def distances() -> list[Metric]:
    """The metrics of the report for which lower is better."""
    return [metric for metric in shown_in("report") if metric.direction == "lower"]


def table_row(rows: Sequence[Results], shown: Sequence[Metric]) -> list[str]:
    """One number of steps: the methods' numbers, metric by metric, then their milliseconds."""
    numbers = [f"{metric.value(row):.{metric.digits}f}" for metric in shown for row in rows]
    times = [f"{row['ms_per_image']:.1f}" for row in rows]
    return [str(rows[0]["steps"]), str(rows[0]["nfe"]), *numbers, *times]


def caption(runs: list[Results]) -> str:
    rows = [row for run in runs for row in run["rows"]]
    row = alike(rows, "mmd_name", "frechet_name", "sample_images", "reference_images", "solver")
    real = max(alike(runs, "real_mmd")["real_mmd"], 0.0)
    return (
        f"Lower is better. {row['mmd_name']}, unbiased, times 1000; {row['frechet_name']}. "
        f"{row['sample_images']:,} generated images per row against {row['reference_images']:,} photographs, two "
        f"halves of which have an MMD of {real:.2f}; {row['solver']} solver{temperatures(runs)}. "
        "NFE counts evaluations of the flow model per image; time includes everything else."
    )


def temperatures(runs: list[Results]) -> str:
    """The temperatures that are not 1, by method; "" without any."""
    found = {run["method"]: run["rows"][0].get("temperature", 1) for run in runs}
    return "".join(
        f"; {method} at a temperature of {value:g}" for method, value in found.items() if value != 1
    )


def steps_block(results: Results) -> str:
    """What each command of the demo took."""
    steps = results["steps"]
    body = [
        [step["purpose"], f"{step['seconds']:.0f} s", f"{step['peak_memory_mib']:,} MiB"] for step in steps
    ]
    total = sum(step["seconds"] for step in steps)
    most = max(step["peak_memory_mib"] for step in steps)
    body.append(["**all**", f"**{total / 60:.1f} min**", f"**{most:,} MiB**"])
    commands = ["```bash", *(step["command"] for step in steps), "```"]
    hardware = results["runs"][0]["certificate"]["hardware"]
    machine = f"Measured on {hardware['processor']}, {hardware['cores']} cores; memory is the largest process's peak."
    return "\n".join([*table(["step", "time", "peak memory"], body), "", machine, "", *commands])
