"""The table of results/campaign/memorising_*.json: auxiliary models by regularisation."""

from __future__ import annotations

from pages.markdown import number, table
from pages.stored import Results, alike

HEADS = [
    "cure",
    "lowest held-out loss",
    "at images",
    "last",
    "training",
    "NLL on other pictures",
    "sigma",
    "KL",
]
ON_OTHERS = ("nll_nats", "sigma_geometric_mean", "kl_nats_per_image")


def lines(document: Results) -> list[str]:
    """Auxiliary models by regularisation: lowest and last held-out loss, and the best weights on other pictures."""
    cures = document["results"]["cures"]
    others = [found["best_on_others"] for found in cures.values() if "best_on_others" in found]
    images = alike(others, "images")["images"] if others else 0
    said = f" on {images:,} pictures that no model was trained on" if others else ""
    return [
        *table(HEADS, [row(name, found) for name, found in cures.items()]),
        "",
        "Held-out losses are those of the averaged weights. The exported weights, which had the lowest held-out loss, "
        f"are measured{said}: negative log density in nats per entry, typical sigma, KL in nats per image.",
    ]


def row(name: str, found: Results) -> list[str]:
    """What is known of a model; a training that is under way has not all of it."""
    loss, best = found["losses"], found.get("best_on_others", {})
    return [
        name,
        number(loss.get("held_out_lowest")),
        f"{loss['held_out_lowest_at']:,}" if "held_out_lowest_at" in loss else "",
        number(loss.get("held_out")),
        number(loss.get("training")),
        *(number(best.get(key)) for key in ON_OTHERS),
    ]
