"""Every name that is imported from the package is there; test files can be collected.

Names that are used and never defined are found by ruff (`make lint`).
"""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
