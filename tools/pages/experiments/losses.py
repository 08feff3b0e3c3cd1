"""The losses of an experiment's models."""

from __future__ import annotations

from pages.markdown import number, table
from pages.stored import Results


def loss_cells(found: Results) -> list[str]:
    """Loss in training and on held-out images; empty where it is not known yet."""
    return [number(found.get(part)) for part in ("training", "held_out")]


def losses_table(losses: Results) -> list[str]:
    """Images seen and losses of each model that was trained."""
    body = [
        [name, f"{found['images_seen']:,}", *loss_cells(found)]
        for name, found in losses.items()
        if found["images_seen"]
    ]
    return table(["model", "images seen", "loss, training", "loss, held-out"], body)
