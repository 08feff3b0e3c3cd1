"""Costs as a text table: a row per level, a column per kind of operation."""

from collections.abc import Sequence

from lediflow.nn.cost.bricks import Cost
from lediflow.nn.cost.hourglass import LevelCost, ModelCost

HEADS = (
    "part",
    "tokens",
    "layers",
    "M parameters",
    "GFLOP",
    "projections",
    "core",
    "feed-forward",
    "resampling",
    "MB kept",
)


def cost_table(cost: ModelCost) -> str:
    """The table for the forward pass of one image; the four columns after GFLOP add up to it."""
    rows = [level_row(level) for level in cost.levels]
    rows += [[name, "", "", *figures(part), "", "", "", "", megabytes(part)] for name, part in besides(cost)]
    return aligned([list(HEADS), *rows])


def besides(cost: ModelCost) -> list[tuple[str, Cost]]:
    return [*cost.besides.items(), ("total", cost.total)]


def level_row(level: LevelCost) -> list[str]:
    parts = (level.attention_projections, level.attention_core, level.feed_forward, level.resampling)
    grid = f"{level.height}x{level.width}"
    flops = [gigaflops(part) for part in parts]
    return [level.name, grid, str(level.layers), *figures(level.total), *flops, megabytes(level.total)]


def figures(cost: Cost) -> list[str]:
    return [f"{cost.parameters / 1e6:.3f}", gigaflops(cost)]


def gigaflops(cost: Cost) -> str:
    return f"{cost.flops / 1e9:.3f}"


def megabytes(cost: Cost) -> str:
    return f"{cost.kept_bytes / 1e6:.2f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Pad the columns: the first is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)
