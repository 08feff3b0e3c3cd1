"""Tables of results/campaign/flow_maps_*.json: teachers and their flow maps."""

from __future__ import annotations

from pages.experiments.losses import losses_table
from pages.experiments.quality import about_numbers
from pages.markdown import best_in_bold, table
from pages.stored import Results, by_key

SOLVED = {"euler": "Euler", "midpoint": "midpoint", "reflow": "straightened, Euler"}
EIGHT, ONE, NONE = "8", "1 (map)", ""


def lines(document: Results) -> list[str]:
    """Teachers and their flow maps: a row for each flow and sampler, a column for each number of calls."""
    results = document["results"]
    rows, losses = results["rows"], results["losses"]
    measured = {name: by_key(found, lambda row: row["nfe"], "mmd_unbiased") for name, found in rows.items()}
    calls = sorted({nfe for line in measured.values() for nfe in line})
    body = [[*flow_and_sampler(name), *cells] for name, cells in best_in_bold(measured, calls).items()]
    intervals = [row["mmd_interval"] for found in rows.values() for row in found]
    models = {name: found for name, found in losses.items() if name in rows or "_" not in name}
    return [
        *table(["flow", "calls of the sampler", *(f"{nfe}" for nfe in calls)], body),
        "",
        f"{about_numbers(results, intervals, ', by calls of the flow')}. The best of a column is bold.",
        "",
        *losses_table(models),
    ]


def flow_and_sampler(name: str) -> list[str]:
    """What a row of a campaign of flow maps measures, in words: the flow, and calls of the latent sampler."""
    kind, _, rest = name.partition("_")
    method, _, precision = rest.partition("_")
    solved = SOLVED.get(method, "") + (f", in {precision}" if precision else "")
    if kind == "fm":
        return [f"FM, {solved}" if solved else "flow map of FM", NONE]
    if kind == "teacher":
        return [f"teacher `{rest}`, midpoint", EIGHT]
    if kind == "sampler":
        return ["LeDiFlow, midpoint", ONE]
    return [f"LeDiFlow, {solved}" if solved else f"flow map `{rest}`", ONE if kind == "both" else EIGHT]
