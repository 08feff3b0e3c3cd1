"""Folders of a sweep's jobs: one for each, with names that any command line takes."""

import re

import pytest

from lediflow.config.composition.sweep import LONGEST, exclusion, suffix, sweep_folder

RUN = "runs/demo/flow-learned-seed0"


def test_options_that_the_default_name_lacks_are_appended_to_the_folder():
    overrides = [
        "stage=flow",
        "seed=0",
        "train.images=5",
        "engine.device=cpu",
        "paths.runs=x",
        "stage.cap=2.5",
    ]
    assert sweep_folder(RUN, overrides) == f"{RUN}__stage.cap-2.5__train.images-5"


@pytest.mark.parametrize("overrides", [["seed=1", "stage=flow"], ["run=here", "train.images=5"], []])
def test_a_folder_name_that_contains_the_swept_options_is_unchanged(overrides):
    assert sweep_folder(RUN, overrides) == RUN


def test_different_overrides_never_share_a_folder():
    values = ["1", "-1", "1e+3", "1e-3", "1e_3", "a/b", "a_b", "a__b", "a,b", "a b", "_a", "ü", "", "'a=b'", "[1,2]",
              "[1,3]", "x" * 300, "x" * 301, "1__y-2"]  # fmt: skip
    quoted = [value if value.startswith(("'", "[")) else f"'{value}'" for value in values]
    sets = [[f"x={value}"] for value in quoted] + [["x=1", "y=2"], ["x=1", "y=3"], ["y=1", "x=2"]]
    names = [suffix(overrides) for overrides in sets]
    assert len({*names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)
        assert len(name) <= LONGEST


def test_the_order_of_overrides_does_not_matter():
    assert suffix(["b=1", "a=2"]) == suffix(["a=2", "b=1"]) == "__a-2__b-1"
    assert suffix(["name='x'"]) == suffix(["name=x"])


@pytest.mark.parametrize("old", ["train.images=5,warm_start=a_b", "train.images=5,warm_start='a_b'"])
def test_a_folder_of_the_older_form_is_continued(tmp_path, old):
    folder = tmp_path / f"flow,{old}"
    folder.mkdir()
    assert sweep_folder(f"{tmp_path}/flow", ["warm_start='a/b'", "train.images=5", "seed=1"]) == str(folder)


def test_a_folder_of_the_older_form_with_another_value_is_not_continued(tmp_path):
    old = tmp_path / "flow,train.images=5"
    old.mkdir()
    (old / "config.yaml").write_text("stage: {cap: 5.0}\n")
    found = [sweep_folder(f"{tmp_path}/flow", [f"stage.cap={cap}", "train.images=5"]) for cap in (5, 10)]
    assert found == [str(old), f"{tmp_path}/flow__stage.cap-10__train.images-5"]


def test_swept_inputs_are_part_of_the_folder_name():
    assert exclusion(["-m", "parent=a,b", "seed=0,1"])[0].endswith("=[data.path]")
    assert exclusion(["-m", "parent=a", "data.path=d", "seed=0,1"])[0].endswith("=[data.path,parent]")
    assert sweep_folder(RUN, ["parent=a"]) == f"{RUN}__parent-a"
