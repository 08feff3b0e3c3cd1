"""Documents name things that exist, and their rendered parts say what the code and the results say."""

from __future__ import annotations

import re

import pytest
from documents import (
    DOCUMENTS,
    ROOT,
    defines,
    fenced,
    inline_code,
    links,
    named_objects,
    section_links,
    sections,
    tool,
)

from lediflow.engine.protocol import EngineConfig

FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(py|yaml|sh|md|toml)")
FOLDER = re.compile(r"(lediflow|conf|tools|tests|docs)/([\w-]+/)*")
OPTION = re.compile(r"(data|train|engine|model|tracking|codec|features|stage|paths)\.[a-z0-9_.]+(?==|$)")
TARGET = re.compile(r"make ([a-z-]+)")

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)


@each_document
def test_linked_files_exist(path):
    inside = [link for link in links(path.read_text()) if "://" not in link]
    assert [link for link in inside if not (path.parent / link).exists()] == []


@each_document
def test_linked_sections_exist(path):
    text = path.read_text()
    targets = [(path.parent / file if file else path, section) for file, section in section_links(text)]
    missing = [
        f"{page.name}#{section}"
        for page, section in targets
        if page.suffix == ".md" and section not in sections(page.read_text())
    ]
    assert missing == []


def test_every_page_is_linked_from_the_readme():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(links((ROOT / "README.md").read_text()))


@each_document
def test_files_and_folders_that_are_named_exist(path):
    """Paths are given from the top, from the package, or as a neighbour of the file named before."""
    package = ROOT / "lediflow"
    known = {file.name for file in [*package.rglob("*"), *ROOT.glob("*"), *(ROOT / "tools").glob("*")]}
    named = [code for code in inline_code(path.read_text()) if FILE.fullmatch(code) or FOLDER.fullmatch(code)]
    made_by_runs = {"config.yaml", "table.md"}
    missing = [
        name
        for name in named
        if not ((ROOT / name).exists() or (package / name).exists() or name in known | made_by_runs)
    ]
    assert missing == []


@each_document
def test_functions_and_classes_that_are_named_exist(path):
    """Written `file.py:name`, the file from the package."""
    package = ROOT / "lediflow"
    named = named_objects(path.read_text())
    wrong = [
        f"{file}:{name}"
        for file, name in named
        if not ((package / file).is_file() and defines(package / file, name))
    ]
    assert wrong == []


def first_column(section: str) -> set[str]:
    """The names in the first column of the table in a section of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {code for cell in rows for code in inline_code(cell)}


def test_the_architecture_has_a_line_for_every_package_and_top_module_and_for_no_others():
    package = ROOT / "lediflow"
    packages = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")} - {"."}
    modules = {path.stem for path in package.glob("*.py") if not path.name.startswith("_")}
    assert first_column("Packages") == packages | modules


def test_the_architecture_has_a_line_for_every_folder_of_the_checkout_and_for_no_others():
    """Folders at the top, and those inside conf, results, slurm and tools."""
    described = first_column("The checkout")
    assert [name for name in described if not (ROOT / name).is_dir()] == []
    inside = [path for top in ("conf", "results", "slurm", "tools") for path in (ROOT / top).iterdir()]
    source = ("conf", "docs", "lediflow", "results", "slurm", "tests", "tools")
    folders = {f"{path.relative_to(ROOT).as_posix()}/" for path in [*inside, *map(ROOT.joinpath, source)]
               if path.is_dir() and not path.name.startswith("_")}  # fmt: skip
    assert folders - described == set()


@each_document
def test_options_that_are_named_exist(path):
    configuration = tool("render_configuration")
    configs = [*configuration.COMMANDS.values()]
    known = {option.key for config in configs for option in configuration.options_of(config)}
    known |= {
        option.key
        for kind in configuration.STAGES.values()
        for option in configuration.options_of(kind.options, "stage.")
    }
    codes = [code for code in inline_code(path.read_text()) if not code.endswith((".py", ".safetensors"))]
    named = [match[0] for code in codes if (match := OPTION.match(code))]
    assert [name for name in named if name not in known] == []


@each_document
def test_make_targets_that_are_named_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    named = [
        target for code in [*inline_code(text), *fenced(text, "bash")] for target in TARGET.findall(code)
    ]
    assert set(named) <= targets


def test_the_page_of_options_is_what_the_dataclasses_say():
    configuration = tool("render_configuration")
    assert configuration.PAGE.read_text() == configuration.page(), "run: python tools/render_configuration.py"


def test_the_comment_of_a_wrapped_field_is_found():
    comments = tool("render_configuration").field_comments(EngineConfig)
    assert comments["attention_route"].startswith("implementation of neighborhood attention")


def test_tables_of_results_are_what_the_results_say():
    results = tool("render_results")
    assert results.outdated(ROOT) == {}, "run: python tools/render_results.py"
