"""Parsing of the project's Markdown files."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

from lediflow.edit import as_option

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
OBJECT = re.compile(r"([\w/]+\.py):([\w.]+)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
SECTION_LINK = re.compile(r"\]\(([^)#\s:]*)#([\w-]+)\)")
STEPS = "<!-- commands: steps -->"


def fenced(text: str, language: str) -> list[str]:
    """The blocks of one language."""
    return [content for found, content in FENCE.findall(text) if found == language]


def inline_code(text: str) -> list[str]:
    """The texts between single backticks, outside of code blocks."""
    return CODE.findall(FENCE.sub("", text))


def named_objects(text: str) -> list[tuple[str, str]]:
    """(file, name) of each `file.py:name`; a name is that of a function, class or constant, or CLASS.MEMBER."""
    return [(found[1], found[2]) for code in inline_code(text) if (found := OBJECT.fullmatch(code))]


def defines(path: Path, name: str) -> bool:
    """Whether a file defines the name itself: what it imports or inherits does not count."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in name.split("."):
        found = [node for node in body if part in names_of(node)]
        if not found:
            return False
        body = getattr(found[-1], "body", [])
    return True


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    flat = [part for target in targets for part in getattr(target, "elts", [target])]
    return [part.id for part in flat if isinstance(part, ast.Name)]


def links(text: str) -> list[str]:
    return LINK.findall(FENCE.sub("", text))


def section_links(text: str) -> list[tuple[str, str]]:
    """(file, section) of each link to a section; the file is empty for a section of the same page."""
    return SECTION_LINK.findall(FENCE.sub("", text))


def sections(text: str) -> list[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def commands(block: str) -> list[list[str]]:
    """The command lines of a shell block, as a shell would split them."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def lediflow_commands(block: str) -> list[tuple[str, list[str]]]:
    """(name, arguments) of each `python -m lediflow.NAME` and `torchrun ... -m lediflow.NAME`."""
    found = []
    for words in commands(block):
        modules = [
            place
            for place, word in enumerate(words)
            if word.startswith("lediflow.") and words[place - 1] == "-m"
        ]
        if modules:
            name, arguments = words[modules[0]].removeprefix("lediflow."), words[modules[0] + 1 :]
            if name == "edit":  # its first argument is a part of the name of its options
                name, arguments = f"edit_{arguments[0]}", [as_option(word) for word in arguments[1:]]
            found.append((name, arguments))
    return found


def readme_steps() -> list[tuple[str, list[str]]]:
    """The README's commands from photographs to the report."""
    after = (ROOT / "README.md").read_text().split(STEPS)[1]
    return lediflow_commands(fenced(after, "bash")[0])


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module; it finds its neighbours there as it does when it is run."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.append(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
