"""Renders tables of results/*.json into the documents, between markers, so that no number is typed by hand.

    python tools/render_results.py --collect runs/demo    store a finished demo's numbers and picture, then render
    python tools/render_results.py --bench FILE.json      store the FILE.json of tools/bench, then render
    python tools/render_results.py --anonymity FOLDER NAME    store what `lediflow.edit anonymity` wrote, then render
    python tools/render_results.py --grid FOLDER          store results of `lediflow.evaluate mode=grid`, then render
    python tools/render_results.py --samples FOLDER NAME  store docs/images/NAME.png: the first images of a finished
                                                          tools/campaign/comparison.py, then render
    python tools/render_results.py                        render the stored results
    python tools/render_results.py --check                exit 1 if a document is out of date

This tool replaces the text between `<!-- render: NAME -->` and `<!-- end: NAME -->` in a document, and draws the
figures of the comparison. Two blocks of docs/architecture.md come from the code: `code` (count_code.py) and `layers`.
pages/blocks.py lists all blocks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lediflow.errors import exit_on_errors
from pages import keeping
from pages.comparison import figures, samples
from pages.markers import outdated

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--collect", type=Path, metavar="DEMO", help="keep the numbers of a finished demo")
    parser.add_argument("--bench", type=Path, nargs="+", default=[], metavar="JSON", help="keep benchmarks")
    parser.add_argument("--grid", type=Path, metavar="FOLDER", help="keep a grid")
    parser.add_argument("--anonymity", nargs=2, metavar=("FOLDER", "NAME"), help="keep numbers of anonymity")
    parser.add_argument(
        "--samples",
        nargs="+",
        default=[],
        metavar=("FOLDER", "NAME"),
        help=f"keep grids of images of a comparison: {', '.join(samples.GRIDS)}",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a document is out of date"
    )
    options = parser.parse_args()
    if options.check and (
        options.collect or options.bench or options.grid or options.anonymity or options.samples
    ):
        parser.error("--check writes nothing, so it cannot keep anything")
    return options


def keep(options: argparse.Namespace) -> None:
    """Store what the options name."""
    if options.collect:
        keeping.keep_demo(options.collect, ROOT)
    for file in options.bench:
        keeping.keep_bench(file, ROOT)
    if options.grid:
        keeping.keep_grid(options.grid, ROOT)
    if options.anonymity:
        folder, name = options.anonymity
        keeping.keep_anonymity(Path(folder), name, ROOT)
    if options.samples:
        folder, *names = options.samples
        keeping.keep_samples(Path(folder), names, ROOT)


def main() -> None:
    options = parse()
    if options.check:
        stale = [*outdated(ROOT), *figures.outdated(ROOT)]
        if stale:
            names = ", ".join(path.name for path in stale)
            sys.exit(f"out of date: {names}; run: python tools/render_results.py")
        return
    keep(options)
    for path, text in outdated(ROOT).items():
        path.write_text(text)
    figures.draw_outdated(ROOT)


if __name__ == "__main__":
    with exit_on_errors():
        main()
