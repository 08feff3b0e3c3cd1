"""The table of results/campaign/temperatures_*.json: one trained chain at several temperatures of the prior."""

from __future__ import annotations

from pages.experiments.quality import about_numbers
from pages.markdown import number, table
from pages.stored import Results, alike, by_key


def lines(document: Results) -> list[str]:
    """A row for each solver and temperature, a column for each number of solver steps."""
    rows = document["results"]["rows"]
    steps = sorted({row["steps"] for row in rows})
    found = by_key(rows, lambda row: (row["solver"], row["temperature"], row["steps"]), "mmd_unbiased")
    kinds = sorted({(row["solver"], row["temperature"]) for row in rows}, reverse=True)
    body = [
        [f"{solver}, {value:g}", *(number(found.get((solver, value, step))) for step in steps)]
        for solver, value in kinds
    ]
    heads = ["solver, temperature", *(f"{step} step{'s' if step > 1 else ''}" for step in steps)]
    first = alike(rows, "mmd_name", "sample_images", "reference_images")
    facts = first | {"images": first["sample_images"]}
    return [
        *table(heads, body),
        "",
        f"{about_numbers(facts, (row['mmd_interval'] for row in rows))}; all rows start from the same z and noise. A "
        "midpoint step has two evaluations, an Euler step one.",
    ]
