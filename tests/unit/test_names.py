"""Every name in the code is defined, and every name that is imported from the package is there.

Linters take the axes in jaxtyping's shape strings for names, so pyproject.toml turns their rule off.
Here it is applied to everything outside of such strings.
"""

import ast
import io
import json
import subprocess
import sys
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def undefined_names(*paths):
    """(file, line, column, message) of each name that ruff finds no definition of."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821",
        "--output-format",
        "json",
    ]
    found = subprocess.run([*command, *paths], cwd=ROOT, capture_output=True, text=True)
    return [
        (entry["filename"], entry["location"]["row"], entry["location"]["column"] - 1, entry["message"])
        for entry in json.loads(found.stdout)
    ]


def is_in_shape_string(file, row, column):
    """Whether a position is inside a plain string; f-strings contain code."""
    tokens = tokenize.generate_tokens(io.StringIO(Path(file).read_text()).readline)
    return any(
        token.type == tokenize.STRING
        and token.start <= (row, column) < token.end
        and "f" not in token.string.partition(token.string[-1])[0].lower()
        for token in tokens
    )


def module_file(module):
    """File of a module of the package; None if there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def names_of(file):
    """Names that the top level of a module binds, those under `if` and `try` included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def missing_imports(file):
    """`module.name` of each import from the package for which there is no such module or no such name."""
    imports = (
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lediflow"
    )
    return [
        f"{node.module}.{alias.name}"
        for node in imports
        for alias in node.names
        if module_file(f"{node.module}.{alias.name}") is None
        and ((found := module_file(node.module)) is None or alias.name not in names_of(found))
    ]


def test_every_name_that_is_imported_from_the_package_is_there():
    files = [file for folder in ("lediflow", "tests", "tools") for file in (ROOT / folder).rglob("*.py")]
    missing = {str(file.relative_to(ROOT)): missing_imports(file) for file in files}
    assert {file: names for file, names in missing.items() if names} == {}


def test_an_import_of_a_removed_module_or_name_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "from lediflow import ranges\nfrom lediflow.ranges import no_such\nfrom lediflow.gone import x\n"
    )
    assert missing_imports(module) == ["lediflow.ranges.no_such", "lediflow.gone.x"]


def test_test_files_have_different_names():
    """pytest imports them by name alone and refuses to collect two of one name."""
    counts = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.processes
def test_every_name_is_defined():
    found = undefined_names("lediflow", "tests", "tools")
    assert found  # shape strings: without any, ruff has said nothing
    assert [entry for entry in found if not is_in_shape_string(*entry[:3])] == []


@pytest.mark.processes
def test_an_undefined_name_is_found_in_code_and_in_f_strings(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('def f(x: "Float[Tensor, \' batch\']"):\n    return nowhere, f"{neither}"\n')
    found = [entry for entry in undefined_names(str(module)) if not is_in_shape_string(*entry[:3])]
    assert sorted(message for *_, message in found) == [
        "Undefined name `neither`",
        "Undefined name `nowhere`",
    ]
