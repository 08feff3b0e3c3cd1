"""Sizes of the package's files and functions, counted from their syntax trees.

    python tools/count_code.py                       the working tree
    python tools/count_code.py c1c8a74 HEAD          two commits in one table
    python tools/count_code.py c1c8a74 HEAD --keep   write the counts to results/code.json, too; then
    python tools/render_results.py                   renders them into docs/architecture.md

Only `lediflow/**/*.py` is counted: no tests, tools or configuration files. Lines are all lines of a file. A function's
lines are those from `def` to its last line, with its docstring and without decorators; methods and nested functions are
counted, too. Statements are those of the syntax tree without docstrings: unlike lines, they do not depend on how the
code is wrapped.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages.markdown import table

ROOT = Path(__file__).parents[1]
KEPT = Path("results/code.json")
PACKAGE = "lediflow"
SMALL_LINES = 40
WORKING_TREE = "working tree"

Sources = Mapping[str, str]  # path from the top -> text
Count = dict[str, Any]

HEADS = [
    "code", "files", "lines in all", "statements", "lines a file: median, p90, max",
    "functions", "lines a function: median, p90, max", f"files below {SMALL_LINES} lines",
]  # fmt: skip


def sources_here(root: Path) -> Sources:
    """The package's files in the working tree."""
    return {
        path.relative_to(root).as_posix(): path.read_text() for path in sorted((root / PACKAGE).rglob("*.py"))
    }


def sources_at(commit: str, root: Path) -> Sources:
    """The package's files in a commit."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit, PACKAGE], cwd=root, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = [item for item in tar if item.name.endswith(".py")]
        return {item.name: read(tar, item) for item in files}


def read(tar: tarfile.TarFile, item: tarfile.TarInfo) -> str:
    stream = tar.extractfile(item)
    assert stream is not None  # an ordinary file
    return stream.read().decode()


def count(sources: Sources) -> Count:
    """Sizes of files and functions; `small_files` does not count `__init__.py`."""
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    trees = [ast.parse(text) for text in sources.values()]
    functions = [length for tree in trees for length in function_lengths(tree)]
    small = [path for path, size in lines.items() if size < SMALL_LINES and not path.endswith("__init__.py")]
    return {
        "files": len(lines),
        "lines": sum(lines.values()),
        "statements": sum(map(statements, trees)),
        "file_lines": spread(list(lines.values())),
        "functions": len(functions),
        "function_lines": spread(functions),
        "small_files": len(small),
    }


def function_lengths(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None  # set by the parser
            yield node.end_lineno - node.lineno + 1


def statements(tree: ast.AST) -> int:
    """Number of statements, without docstrings and other string expressions."""
    return sum(isinstance(node, ast.stmt) and not is_text(node) for node in ast.walk(tree))


def is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def spread(values: Sequence[int]) -> list[int]:
    """Median, 90th percentile and maximum, each a value that occurs (nearest rank)."""
    ordered = sorted(values)
    return [ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 1.0)] if ordered else []


def counted(name: str, root: Path) -> Count:
    """The counts of a commit, with its hash and date, or of the working tree."""
    if name == WORKING_TREE:
        return {"code": name, **count(sources_here(root))}
    asked = ["git", "log", "-1", "--format=%h %cs", "--abbrev=7", name]
    shown = subprocess.run(asked, cwd=root, capture_output=True, check=True, text=True).stdout
    commit, date = shown.split()
    return {"code": f"{commit}, {date}", **count(sources_at(commit, root))}


def lines(counts: Sequence[Count]) -> list[str]:
    """The counts as a Markdown table."""
    return table(HEADS, map(cells, counts))


def cells(found: Count) -> list[str]:
    numbers: tuple[int | list[int], ...] = (
        found["files"],
        found["lines"],
        found["statements"],
        found["file_lines"],
    )
    numbers += (found["functions"], found["function_lines"], found["small_files"])
    return [found["code"], *map(text_of, numbers)]


def text_of(number: int | list[int]) -> str:
    return ", ".join(map(str, number)) if isinstance(number, list) else f"{number:,}"


def block(document: Mapping[str, Any]) -> str:
    """The part of docs/architecture.md that `render_results.py` writes."""
    command = f"Counted by `{document['command']}`; without arguments it counts the working tree."
    return "\n".join([*lines(document["counts"]), "", command])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("commits", nargs="*", help="what to count (default: the working tree)")
    parser.add_argument("--keep", action="store_true", help=f"also write {KEPT}; commits only")
    options = parser.parse_args(arguments)
    if options.keep and not options.commits:
        parser.error("--keep needs commits, because the working tree has no hash")
    counts = [counted(name, ROOT) for name in options.commits or [WORKING_TREE]]
    print("\n".join(lines(counts)))
    if options.keep:
        commits = " ".join(found["code"].partition(",")[0] for found in counts)
        kept = {"command": f"python tools/count_code.py {commits}", "counts": counts}
        (ROOT / KEPT).write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
