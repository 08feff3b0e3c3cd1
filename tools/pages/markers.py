"""Blocks in the documents: the text between `<!-- render: NAME -->` and `<!-- end: NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lediflow.errors import UserError
from pages.blocks import text_of

BLOCK = re.compile(r"<!-- render: (?P<name>\w+) -->.*?<!-- end: (?P=name) -->", re.DOTALL)
MARK = re.compile(r"<!-- (?P<kind>render|end): (?P<name>\w+) -->")
LIKE_A_MARK = re.compile(r"<!--\s*(?:render|end)\b[^>\n]*>?")


def rendered(text: str, block: Callable[[str], str]) -> str:
    """The document with each of its blocks made anew; `block` gives the text of a block by its name."""

    def replaced(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- render: {name} -->\n{block(name)}\n<!-- end: {name} -->"

    return BLOCK.sub(replaced, text)


def block_names(text: str, page: str) -> list[str]:
    """The blocks of a document; UserError, with the line, for a mark without its other half or written otherwise."""
    names: list[str] = []
    is_open = False
    for like in LIKE_A_MARK.finditer(text):
        where = f"{page}:{text.count(chr(10), 0, like.start()) + 1}"
        mark = MARK.fullmatch(like[0])
        if mark is None:
            raise UserError(f"{where}: {like[0]!r}; write <!-- render: NAME --> or <!-- end: NAME -->")
        is_begin, name = mark["kind"] == "render", mark["name"]
        if is_begin and is_open:
            raise UserError(
                f"{where}: {name!r} begins before {names[-1]!r} ends; add <!-- end: {names[-1]} -->"
            )
        if not is_begin and not (is_open and name == names[-1]):
            opened = repr(names[-1]) if is_open else "no block"
            raise UserError(f"{where}: {name!r} ends, but {opened} has begun; add <!-- render: {name} -->")
        if is_begin:
            names.append(name)
        is_open = is_begin
    if is_open:
        raise UserError(f"{page}: {names[-1]!r} does not end; add <!-- end: {names[-1]} -->")
    return names


def documents(root: Path) -> dict[Path, str]:
    """The documents that have blocks, and their texts."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path: path.read_text() for path in pages}


def outdated(root: Path) -> dict[Path, str]:
    """Documents that say something else than the results -> what they should say.

    Raises UserError for marks or results from which a document cannot be rendered.
    """
    wanted: dict[Path, str] = {}
    for path, text in documents(root).items():
        blocks = {name: text_of(name, root) for name in block_names(text, path.name)}
        wanted[path] = rendered(text, blocks.__getitem__)
    return {path: text for path, text in wanted.items() if text != path.read_text()}
