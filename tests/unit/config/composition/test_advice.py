"""Recorded options, read from another folder than the one the run began in."""

from __future__ import annotations

from pathlib import Path

import pytest

from lediflow.config.composition.advice import relocated


@pytest.fixture
def options(tmp_path, monkeypatch):
    for name in ("began/shards", "began/runs/aux", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return {"run": "runs/flow", "parent": "runs/aux", "data": {"path": "shards", "threads": 2}}


def test_relative_paths_refer_to_the_folder_of_the_start(options, tmp_path):
    began = tmp_path / "began"
    moved = relocated(options, Path("../began/runs/flow"))
    assert moved["data"] == {"path": str(began / "shards"), "threads": 2}
    assert moved["parent"] == str(began / "runs/aux")


@pytest.mark.parametrize("run", ["/runs/flow", "other/name", "../runs/flow", "None"])
def test_paths_stay_where_the_start_is_unknown(options, run):
    assert relocated({**options, "run": run}, Path("../began/runs/flow")) == {**options, "run": run}


def test_paths_stay_in_the_folder_of_the_start(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "began")
    assert relocated(options, Path("runs/flow")) == options
