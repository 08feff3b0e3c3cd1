"""The tables of a comparison of widths, in Markdown."""

from __future__ import annotations

from statistics import median
from typing import Any

Results = dict[str, Any]
BASELINE = "FM (Gaussian noise)"


def widths_lines(results: Results) -> list[str]:
    """Quality by width and evaluations, then the losses, then what the numbers were taken on."""
    rows, prior = results["rows"], results["prior_held_out"]
    heads, body = quality(rows)
    interval = median((row["high"] - row["low"]) / 2 for row in rows)
    real, made = rows[0]["reference_images"], rows[0]["sample_images"]
    return [
        *table(heads, body),
        "",
        f"{rows[0]['mmd_name']}, unbiased, times 1000: {made:,} generated images against all {real:,} photographs, z "
        "from the latent sampler; lower is better, the best of a column is bold. Half of a 95 % interval is "
        f"{interval:.2f} (median). "
        f"The prior's typical sigma on {prior['images']:,} held-out images is {prior['sigma_geometric_mean']:.3f}; its "
        f"negative log density {prior['nll_nats']:.2f} nats, the latent's KL {prior['kl_nats_per_image']:.0f} nats.",
        "",
        *table(*losses(results["losses"])),
    ]


def quality(rows: list[Results]) -> tuple[list[str], list[list[str]]]:
    """A line for each width, a column for each solver and number of steps, by evaluations."""
    settings = sorted({(row["nfe"], row["solver"]) for row in rows})
    values = {(row["width"], row["nfe"], row["solver"]): row["mmd"] for row in rows}
    widths = list(dict.fromkeys(row["width"] for row in rows))
    best: dict[tuple[int, str], float | None] = {
        setting: min(values[width, *setting] for width in widths if (width, *setting) in values)
        for setting in settings
    }
    if len(widths) == 1:  # nothing to be better than
        best = dict.fromkeys(best)
    body = [
        [start(width), *(cell(values.get((width, *setting)), best[setting]) for setting in settings)]
        for width in widths
    ]
    return ["start", *(f"{nfe} ({solver})" if nfe else "prior" for nfe, solver in settings)], body


def start(width: float | None) -> str:
    return BASELINE if width is None else f"s = {width:g}"


def cell(value: float | None, best: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return f"**{text}**" if value == best else text


def losses(models: dict[str, Results]) -> tuple[list[str], list[list[str]]]:
    """What each model was trained on, and how far it came."""
    body = [
        [
            name,
            f"{found['images_seen']:,}",
            *(f"{found[part]:.3f}" if part in found else "" for part in ("training", "held_out")),
        ]
        for name, found in models.items()
        if found["images_seen"]
    ]
    return ["model", "images seen", "loss, training", "loss, held-out"], body


def table(heads: list[str], body: list[list[str]]) -> list[str]:
    rules = ["---" if index == 0 else "---:" for index, _ in enumerate(heads)]
    return ["| " + " | ".join(row) + " |" for row in (heads, rules, *body)]
