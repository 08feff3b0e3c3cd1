"""The rows of stages.json as lines to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lediflow.evaluation.grid.cells import ADAPTIVE
from lediflow.evaluation.plots import Line, Point

NAMES = {
    "training": "z of training images",
    "heldout": "z of held-out images",
    "sampler": "z of the sampler",
    "gaussian": "Gaussian noise (flow matching)",
}
SHORT = {
    "training": "training z",
    "heldout": "held-out z",
    "sampler": "sampler's z",
    "gaussian": "flow matching",
}
LIMITS = {
    "prior": "the prior",
    "sampler": "the latent sampler",
    "flow": "the flow",
    "codec": "the codec",
    "nothing": "nothing significant",
}


def stage_lines(document: Mapping[str, Any]) -> dict[Line, list[Point]]:
    """A line for each source of z, and for each of several solvers; the prior alone belongs to the first solver."""
    rows = document["rows"]
    solvers = list(dict.fromkeys(row["solver"] for row in rows if row["steps"]))
    found: dict[Line, list[Point]] = {}
    for row in rows:
        solver = row["solver"] if row["steps"] else solvers[0]
        label = str(row["steps"]) if solver != ADAPTIVE else ADAPTIVE
        point = Point(row["nfe"], row["mmd"], row["low"], row["high"], label)
        found.setdefault(Line(NAMES[row["z"]], solver if len(solvers) > 1 else ""), []).append(point)
    return found


def heading(document: Mapping[str, Any]) -> str:
    """One line: what limits the quality."""
    return f"What limits the quality: {LIMITS[document['verdict']['limits']]}"
