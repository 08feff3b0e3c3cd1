"""Commands that are suggested: recorded options read from another folder, and the next stage of a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.commands import compose

from lediflow.config.composition.advice import RUNS, relocated
from lediflow.config.composition.summary import training
from lediflow.stages import STAGES


@pytest.fixture
def options(tmp_path, monkeypatch):
    for name in ("began/shards", "began/runs/aux", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return {"run": "runs/flow", "parent": "runs/aux", "data": {"path": "shards", "threads": 2}}


@pytest.mark.parametrize("option", RUNS)
def test_relative_paths_refer_to_the_folder_of_the_start(options, tmp_path, option):
    began = tmp_path / "began"
    moved = relocated({**options, option: "runs/aux"}, Path("../began/runs/flow"))
    assert moved["data"] == {"path": str(began / "shards"), "threads": 2}
    assert moved[option] == str(began / "runs/aux")


@pytest.mark.parametrize("run", ["/runs/flow", "other/name", "../runs/flow", "None"])
def test_paths_stay_where_the_start_is_unknown(options, run):
    assert relocated({**options, "run": run}, Path("../began/runs/flow")) == {**options, "run": run}


def test_paths_stay_in_the_folder_of_the_start(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "began")
    assert relocated(options, Path("runs/flow")) == options


def test_the_next_stage_builds_on_any_run_in_the_place_of_the_auxiliary_model(monkeypatch):
    monkeypatch.setitem(STAGES, "other_prior", STAGES["auxiliary"])
    command = compose(
        "train", "experiment=smoke", "stage=auxiliary", "stage.name=other_prior", "run=runs/prior"
    )
    assert " parent=runs/prior " in training(command, "flow")
