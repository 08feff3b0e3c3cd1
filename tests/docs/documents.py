"""What stands in the project's Markdown files, taken apart."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
STEPS = "<!-- commands: steps -->"


def fenced(text: str, language: str) -> list[str]:
    """The blocks of one language."""
    return [content for found, content in FENCE.findall(text) if found == language]


def inline_code(text: str) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    return CODE.findall(FENCE.sub("", text))


def links(text: str) -> list[str]:
    return LINK.findall(FENCE.sub("", text))


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
            found.append((words[modules[0]].removeprefix("lediflow."), words[modules[0] + 1 :]))
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
