"""The benchmark of several GPUs: which commands it starts, what it keeps of them, and of those that fail."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from lediflow.tracking.event_log import event_line

TOOLS = Path(__file__).parents[3] / "tools" / "bench"


@pytest.fixture
def several(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("several_gpus")


def options(folder, *more):
    return ["--folder", str(folder), "--name", "x", "--output", str(folder), *more]


def test_speed_is_measured_with_the_same_batch_a_gpu_and_the_same_in_all(several, tmp_path, monkeypatch):
    started = []

    def launch(bench, ranks, script, *arguments):
        named = dict(zip(arguments[2::2], arguments[3::2], strict=False))
        started.append((ranks, int(named["--batch"])))
        row = {"ranks": ranks, "batch": ranks * int(named["--batch"])}
        Path(named["--output"]).write_text(json.dumps({"results": {"rows": [row]}}))
        if ranks == 4:  # after its first engine
            bench.failed.append("torchrun --nproc_per_node=4")
            raise several.CommandError

    monkeypatch.setattr(several.Bench, "launch", launch)
    monkeypatch.setattr(several, "certificate", dict)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    asked = options(
        tmp_path, "--parts", "training", "--models", "paper_sdv", "--gpus", "1", "2", "4", "--zero", "1"
    )
    with pytest.raises(SystemExit, match="--nproc_per_node=4"):
        several.main(asked)
    assert started == [(1, 64), (2, 64), (2, 32), (4, 64), (4, 16)]
    kept = json.loads((tmp_path / "bench_several_training_x.json").read_text())["results"]
    assert [row["batch"] for row in kept["rows"]] == [64, 128, 64, 256, 64]
    assert len(kept["failed"]) == 2


@pytest.mark.processes
def test_a_failing_command_is_named_with_its_error(several, tmp_path, capsys):
    bench = several.Bench(several.options(options(tmp_path)))
    with pytest.raises(several.CommandError):
        bench.launch(1, "-c", "import sys; print('much'); print('error: too small'); sys.exit(3)")
    assert bench.failed[0].endswith("exit status 3")
    assert capsys.readouterr().out.splitlines()[-1] == "error: too small"
    assert "much" in (tmp_path / "000.log").read_text()


@pytest.mark.parametrize(("gpus", "reason"), [(["2"], "give 1"), (["1", "3"], "64 of paper_sdv cannot")])
def test_gpus_that_cannot_be_compared_are_refused(several, tmp_path, capsys, gpus, reason):
    with pytest.raises(SystemExit):
        several.options(options(tmp_path, "--gpus", *gpus))
    assert reason in capsys.readouterr().err


def test_starts_and_saves_of_a_log_belong_to_their_ranks(several, tmp_path):
    def train(seen, speed):
        return event_line("train", seen, {"images_per_second": speed, "peak_memory_gib": 9.5})

    save = {"seconds": 2.0, "waited_seconds": 0.25}
    log = tmp_path / "events.jsonl"
    log.write_text(
        event_line("start", 0, {"ranks": 2})
        + "".join(train(64 * place, speed) for place, speed in enumerate((10.0, 30.0, 20.0), 1))
        + event_line("checkpoint", 192, save)
        + event_line("resume", 192, {"ranks": 1, "why": "start", "seconds": 5.0})
        + event_line("resume", 192, {"ranks": 1, "why": "bad steps", "seconds": 1.0})
        + train(256, 11.0)
        + event_line("checkpoint", 256, save)
    )
    found = several.starts_and_saves(log, [32, None])
    first, second = found["starts"]
    assert first == {
        "ranks": 2, "from": 0, "to": 192, "resume_seconds": None, "img/s": 20.0, "micro_batch": 32, "peak GiB": 9.5
    }  # fmt: skip
    assert second == {
        "ranks": 1, "from": 192, "to": 256, "resume_seconds": 5.0, "img/s": 11.0, "micro_batch": None, "peak GiB": 9.5
    }  # fmt: skip
    assert found["saves"] == [save | {"ranks": 2}, save | {"ranks": 1}]


def test_less_memory_is_set_before_the_module_runs(several, tmp_path, monkeypatch):
    held = importlib.import_module("held_memory")
    (tmp_path / "shows_arguments.py").write_text("import sys\nprint(sys.argv[1:])\n")
    set_fractions = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda device: type("", (), {"total_memory": 96 * 2**30})
    )
    monkeypatch.setattr(
        "torch.cuda.set_per_process_memory_fraction", lambda *given: set_fractions.append(given)
    )
    monkeypatch.setattr(sys, "argv", ["held_memory.py", "24", "shows_arguments", "a=1"])
    held.main()
    assert set_fractions == [(0.25, 1)]
