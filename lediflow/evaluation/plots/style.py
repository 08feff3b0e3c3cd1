"""The style of plots in files, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lediflow.disk import replacing

COLOURS = ("#b4481f", "#33658f", "#4f7a3a", "#86599c", "#6b6b6b", "#a98300")
INK, MUTED, RULE = "#1d1b19", "#6f6a64", "#dedad4"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "the same drawing twice is the same text",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
DOTS_PER_INCH = 160


@mpl.rc_context(STYLE)
def write_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg (`path` has no suffix); each appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    for suffix, options in ((".png", {"dpi": DOTS_PER_INCH}), (".svg", {"metadata": nothing})):
        with replacing(path.with_suffix(suffix)) as beside:
            figure.savefig(beside, format=suffix[1:], facecolor="white", **options)
