"""Tables of results/campaign/small_*.json: chains with several settings, on few photographs."""

from __future__ import annotations

from pages.experiments.quality import BOLD, by_flow, folded_sources, headings, setting, settings_of, taken_on
from pages.markdown import best_in_bold, number, table
from pages.stored import Results, by_key

SHARES = {"share_closer": "closer to training", "share_memorised": "copies"}


def lines(document: Results) -> list[str]:
    """A chain with several settings: quality for each source of z, on unseen photographs, losses of every model."""
    results = document["results"]
    cures, losses, widths = results["cures"], results["losses"], results.get("widths", {})
    names = {name: with_start(name, widths[name] if widths else None) for name in cures}
    models = {name: f"{name}_flow" for name in cures}
    return [
        *by_flow(cures, names),
        "",
        f"{taken_on(cures)} {BOLD}",
        "",
        *unseen(results, names),
        *folded_sources(
            cures, names, models, [name for name in losses if not name.endswith("_flow")], losses
        ),
    ]


def with_start(name: str, width: Results | None) -> str:
    """The name of a setting with the start of its flow."""
    if width is None:
        return name
    scale = "" if width["k"] == 1 else f"{width['k']:g} sigma, "
    return f"{name} ({scale}s = {width['s']:g})"


def unseen(results: Results, names: dict[str, str]) -> list[str]:
    """MMD to photographs that no model was trained on, and how often images are closer to a training image."""
    found = results.get("unseen")
    if not found:
        return []
    measured = {name: by_key(rows, setting, "mmd_unbiased") for name, rows in found.items()}
    settings = settings_of(measured)
    body = []
    for name, cells in best_in_bold(measured, settings).items():
        nearest = results["copies"][name][0]["nearest_training"]
        body.append([names.get(name, name), *cells, *(number(nearest[key]) for key in SHARES)])
    return [
        *table(["against unseen photographs", *headings(settings), *SHARES.values()], body),
        "",
        "The same metric against photographs that no model was trained on; the last two columns are [measures of "
        "copying](results_experiments.md#how-to-read-the-tables).",
        "",
    ]
