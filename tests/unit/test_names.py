"""Every name in the code is defined.

Linters take the axes in jaxtyping's shape strings for names, so pyproject.toml turns their rule off.
Here it is applied to everything outside of such strings.
"""

import io
import json
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

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
    """Whether a place lies in a plain string; f-strings hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(Path(file).read_text()).readline)
    return any(
        token.type == tokenize.STRING
        and token.start <= (row, column) < token.end
        and "f" not in token.string.partition(token.string[-1])[0].lower()
        for token in tokens
    )


def test_every_name_is_defined():
    found = undefined_names("lediflow", "tests", "tools")
    assert found  # shape strings: without any, ruff has said nothing
    assert [entry for entry in found if not is_in_shape_string(*entry[:3])] == []


def test_an_undefined_name_is_found_in_code_and_in_f_strings(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('def f(x: "Float[Tensor, \' batch\']"):\n    return nowhere, f"{neither}"\n')
    found = [entry for entry in undefined_names(str(module)) if not is_in_shape_string(*entry[:3])]
    assert sorted(message for *_, message in found) == [
        "Undefined name `neither`",
        "Undefined name `nowhere`",
    ]
