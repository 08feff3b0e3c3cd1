"""Blocks in the documents: the text between `<!-- render: NAME -->` and `<!-- end: NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pages.blocks import text_of

BLOCK = re.compile(r"<!-- render: (?P<name>\w+) -->.*?<!-- end: (?P=name) -->", re.DOTALL)


def rendered(text: str, block: Callable[[str], str]) -> str:
    """The document with each of its blocks made anew; `block` gives the text of a block by its name."""

    def replaced(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- render: {name} -->\n{block(name)}\n<!-- end: {name} -->"

    return BLOCK.sub(replaced, text)


def outdated(root: Path) -> dict[Path, str]:
    """Documents that say something else than the results -> what they should say."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    texts = {path: path.read_text() for path in pages}
    wanted = {path: rendered(text, lambda name: text_of(name, root)) for path, text in texts.items()}
    return {path: text for path, text in wanted.items() if text != texts[path]}
