"""The style of all plots: colours, matplotlib settings, and how figures are written to files.

Files are on white, in the colours below. The report's figures (`report.figure`) use the same settings with placeholder
colours, which become the page's CSS variables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lediflow.disk import replacing

COLOURS = ("#b4481f", "#33658f", "#4f7a3a", "#86599c", "#6b6b6b", "#a98300")
INK, MUTED, RULE = "#1d1b19", "#6f6a64", "#dedad4"
DOTS_PER_INCH = 160
# entries that matplotlib would write into an SVG file; without them, equal figures are equal files
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def base_style(ink: str, muted: str, rule: str) -> dict[Any, Any]:
    """matplotlib settings that all plots share, with the colours of text, of labels, and of axes and grid."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "the same drawing twice is the same text",
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": rule,
    }


STYLE = base_style(INK, MUTED, RULE) | {"font.size": 10, "xtick.color": MUTED, "ytick.color": MUTED}


@mpl.rc_context(STYLE)
def write_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg (`path` has no suffix); each file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, options in ((".png", {"dpi": DOTS_PER_INCH}), (".svg", {"metadata": NO_METADATA})):
        with replacing(path.with_suffix(suffix)) as new:
            figure.savefig(new, format=suffix[1:], facecolor="white", **options)
