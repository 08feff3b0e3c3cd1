"""`lediflow COMMAND ...`: every command, by its name."""

import sys
import tomllib
from pathlib import Path

import pytest

from lediflow.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]


def ended(monkeypatch, capsys, *words):
    """Exit status and both streams."""
    monkeypatch.setattr(sys, "argv", ["lediflow", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


def test_every_command_is_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert {f"lediflow.{name}" for name in COMMANDS} == {*layers[0].split(" | ")}
    assert project["project"]["scripts"] == {"lediflow": "lediflow.__main__:main"}


def test_a_command_gets_the_words_after_its_name(monkeypatch, capsys):
    status, out, _ = ended(monkeypatch, capsys, "status", "--help")
    assert status == 0
    assert "python -m lediflow.status logs NAME --follow" in out


def test_a_mistyped_command_is_answered_with_the_nearest(monkeypatch, capsys):
    status, _, err = ended(monkeypatch, capsys, "trian", "seed=1")
    assert (status, err.endswith("; did you mean train?\n")) == (2, True)


def test_help_says_what_each_command_does(monkeypatch, capsys):
    assert ended(monkeypatch, capsys)[0] == 2
    status, out, _ = ended(monkeypatch, capsys, "--help")
    assert status == 0
    assert all(f"  {name} " in out for name in COMMANDS)
