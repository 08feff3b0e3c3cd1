"""Sizes of code and the picture of layers, as docs/architecture.md shows them."""

import importlib
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"

LONG = '''"""A module."""


@decorated
def outer(x):
    """Twice x, and one."""

    def inner(y):
        return y + 1

    return inner(2 * x)


class Thing:
    async def method(self): ...
'''


@pytest.fixture
def tool(monkeypatch):
    """Imports a script of tools/ by its name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_files_functions_and_statements_are_counted_as_by_hand(tool):
    found = tool("count_code").count(
        {"lediflow/__init__.py": "", "lediflow/a.py": LONG, "lediflow/b.py": "x = 1\n"}
    )
    assert (found["files"], found["lines"]) == (3, 16)
    assert found["statements"] == 8  # outer, inner, two returns, Thing, method, `...`, x = 1
    assert found["file_lines"] == [1, 15, 15]
    assert (found["functions"], found["function_lines"]) == (3, [2, 7, 7])  # inner 2, outer 7, method 1
    assert found["small_files"] == 2  # an __init__ is none


def test_a_commit_is_counted_as_it_was(tool, tmp_path):
    count_code = tool("count_code")
    (tmp_path / "lediflow").mkdir()
    (tmp_path / "lediflow" / "a.py").write_text("x = 1\n")
    (tmp_path / "lediflow" / "data.yaml").write_text("x: 1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "lediflow" / "a.py").write_text("x = 1\ny = 2\n")
    assert count_code.counted("HEAD", tmp_path)["lines"] == 1
    assert count_code.counted(count_code.WORKING_TREE, tmp_path)["lines"] == 2


def test_the_picture_has_a_box_for_each_layer_and_arrows_downwards(tool, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        """
        [[tool.importlinter.contracts]]
        type = "layers"
        layers = ["lediflow.train | lediflow.sample", "lediflow.flow"]

        [[tool.importlinter.contracts]]
        type = "forbidden"
        """
    )
    picture = tool("pages.layers").block(tmp_path)
    assert 'layer0["train | sample"]' in picture and 'layer1["flow"]' in picture
    assert picture.count("-->") == 1 and "layer0 --> layer1" in picture
