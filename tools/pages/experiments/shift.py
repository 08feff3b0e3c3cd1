"""The table of results/campaign/shift_*.json: sets against other photographs of the same source."""

from __future__ import annotations

from pages.markdown import number, table
from pages.stored import Results


def lines(document: Results) -> list[str]:
    """MMD between a set and other photographs of the same source: a lower bound for models trained on the set."""
    body = []
    for name, found in document["results"]["sets"].items():
        low, high = found["mmd_interval"]
        value = f"{number(found['mmd_unbiased'])} [{number(low)}, {number(high)}]"
        counts = [f"{found[part]:,}" for part in ("images", "reference_images")]
        body.append([name, *counts, value])
    return table(["set", "photographs of it", "unseen photographs", "MMD"], body)
