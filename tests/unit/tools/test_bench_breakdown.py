"""The breakdown of a training step: its parts add up to the step, and a profiler's events count for the right part."""

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "tools" / "bench"
STEPS = 4


@pytest.fixture
def bench(monkeypatch):
    """Imports a script of tools/bench as `python tools/bench/NAME.py` would see its neighbours."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.mark.parametrize("stage", ["auxiliary", "flow"])
def test_the_parts_of_a_step_add_up_to_it(bench, tmp_path, capsys, monkeypatch, stage):
    breakdown = bench("breakdown")
    monkeypatch.setattr(breakdown, "PICTURES", 24)
    output = tmp_path / "rows.json"
    options = ["--model", "smoke", "--stage", stage, "--batch", "4", "--steps", str(STEPS)]
    bench("training").main(["--breakdown", *options, "--output", str(output), "engine.device=cpu"])
    rows = {row["part"]: row["ms"] for row in json.loads(output.read_text())["results"]["rows"]}
    step = rows.pop("step")
    assert [*rows] == [*breakdown.PARTS, "rest"]
    assert sum(rows.values()) == pytest.approx(step)
    assert all(milliseconds >= 0 for milliseconds in rows.values())
    assert "| backward " in capsys.readouterr().out
    assert breakdown.local.clip_gradient.__module__ == "lediflow.engine.owned_state"  # no timed one is left


def test_several_ranks_are_refused(bench, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        bench("training").main(["--breakdown"])
    assert "--breakdown measures one rank" in capsys.readouterr().err


def runtime(name, moment, correlation):
    return {"cat": "cuda_runtime", "name": name, "ts": moment, "dur": 1, "args": {"correlation": correlation}}


def test_launches_kernels_and_waits_count_for_the_innermost_part(bench):
    events = [
        {"cat": "user_annotation", "name": "part: loss", "ts": 0, "dur": 100},
        {"cat": "user_annotation", "name": "part: forward", "ts": 10, "dur": 50},
        {"cat": "user_annotation", "name": "Optimizer.step", "ts": 0, "dur": 500},
        {"cat": "gpu_user_annotation", "name": "part: loss", "ts": 0, "dur": 900},
        runtime("cudaLaunchKernel", 5, 1),
        runtime("cudaLaunchKernelExC", 20, 2),
        runtime("cudaStreamSynchronize", 30, 3),
        runtime("cudaMalloc", 31, 4),
        runtime("cuLaunchKernel", 200, 5) | {"cat": "cuda_driver"},
        {"cat": "kernel", "name": "a", "ts": 300, "dur": 4000, "args": {"correlation": 1}},
        {"cat": "kernel", "name": "b", "ts": 310, "dur": 6000, "args": {"correlation": 2}},
        {"cat": "gpu_memcpy", "name": "c", "ts": 320, "dur": 500, "args": {"correlation": 5}},
        {"ph": "M", "name": "process_name"},
    ]
    assert bench("breakdown").counts_by_part(events, steps=2) == {
        "loss": {"launches": 0.5, "device ms": 2.0, "waits": 0.0},
        "forward": {"launches": 0.5, "device ms": 3.0, "waits": 0.5},
        "rest": {"launches": 0.5, "device ms": 0.25, "waits": 0.0},
    }
