"""The demo edits photographs that it does not train on, and its check finds edits that went wrong."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from harness.commands import compose
from harness.edited import make_edit

from lediflow.data.streams.order import is_held_out

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture(scope="module")
def tools():
    """demo.py and check_demo.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("demo"), importlib.import_module("check_demo")


def test_the_commands_on_photographs_compose(tools, tmp_path):
    demo, _ = tools
    for _, _, (module, name, *options) in demo.edits(tmp_path, Path("photographs"), ["run=a", "sampler=b"]):
        assert module == "lediflow.edit"
        assert compose(f"edit_{name}", *options).output in map(str, (tmp_path / name for name in demo.EDITS))


def test_the_edited_photographs_are_held_out(tools):
    demo, _ = tools
    fraction = compose("train", "experiment=demo", "stage=flow", "data.path=x").data.held_out_fraction
    names = (demo.EVEN, demo.BROKEN, demo.DARK)
    # a sample's key is its place in the sorted listing, which begins with cell0001.png
    keys = np.array([int(name.removeprefix("cell").removesuffix(".png")) - 1 for name in names])
    assert is_held_out(keys, fraction).all()


def test_edits_with_numbers_that_are_not_finite_or_too_large_are_faults(tools, tmp_path):
    _, check_demo = tools
    assert len(check_demo.edit_faults(tmp_path)) == 2  # both are missing
    frames = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    ways = {"w, linear": {"prior_nll": [float("nan")]}}
    interpolated, inpainted = (
        make_edit(tmp_path / name, record, frames)
        for name, record in zip(check_demo.EDITS, ({"ways": ways}, {"line_error": 1.0}), strict=True)
    )
    assert [fault.split(": ")[1] for fault in check_demo.edit_faults(tmp_path)] == [
        "numbers that are not finite",
        "line_error is 1.0, above 0.0001",
    ]
    for folder, record in ((interpolated, {"ways": {}}), (inpainted, {"line_error": 1e-7})):
        (folder / "edit.json").write_text(json.dumps(record))
    assert check_demo.edit_faults(tmp_path) == []
