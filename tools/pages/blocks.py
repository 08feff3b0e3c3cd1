"""Every rendered block by its name: `<!-- render: NAME -->` in a document."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import count_code
from lediflow.errors import UserError
from pages import demo, evaluations, layers
from pages.comparison import (
    decoded,
    factors,
    goals,
    maps,
    photographs,
    repeats,
    starts,
    tables,
    unseen,
)
from pages.experiments import block as experiments
from pages.speed import benchmarks, components, several_gpus
from pages.speed import goals as speed_goals
from pages.stored import CAMPAIGN, Results, document

# from one results file that has another name, from several, or from the code
BLOCKS: dict[str, Callable[[Path], str]] = {
    "quality": lambda root: demo.quality_block(document(root / demo.RESULTS)),
    "steps": lambda root: demo.steps_block(document(root / demo.RESULTS)),
    "grid": lambda root: evaluations.grid_block(document(root / evaluations.GRID)),
    "code": lambda root: count_code.block(document(root / count_code.KEPT)),
    "layers": layers.block,
    "paper_times": components.block,
    "speed_goals": speed_goals.block,
    "comparison": tables.block,
    "comparison_others": tables.others_block,
    "comparison_decoded": decoded.block,
    "comparison_goals": goals.block,
    "comparison_factors": factors.block,
    "comparison_maps": maps.block,
    "comparison_photographs": photographs.block,
    "comparison_repeats": repeats.block,
    "comparison_starts": starts.block,
    "comparison_unseen": unseen.block,
}

# from the results file of the block's name, by the beginning of this name; the first that fits
BY_FILE: dict[str, tuple[Path, Callable[[Results], str]]] = {
    **{
        begin: (Path("results"), partial(benchmarks.block, lines=lines))
        for begin, lines in several_gpus.LINES.items()
    },
    "bench_": (Path("results"), benchmarks.block),
    "anonymity_": (Path("results"), evaluations.anonymity_block),
    **{
        begin: (CAMPAIGN, partial(experiments.block, lines=lines))
        for begin, lines in experiments.LINES.items()
    },
}


def text_of(name: str, root: Path) -> str:
    """The text of a block.

    Raises UserError if no block has this name, or its results files lack something; a note at any other error has the
    name of the block.
    """
    try:
        if name in BLOCKS:
            return BLOCKS[name](root)
        for begin, (folder, render) in BY_FILE.items():
            if name.startswith(begin):
                return render(document(root / folder / f"{name}.json"))
    except Exception as error:
        error.add_note(f"in the block {name!r} of the documents")
        raise
    raise UserError(f"no block is called {name!r}; tools/pages/blocks.py lists them")
