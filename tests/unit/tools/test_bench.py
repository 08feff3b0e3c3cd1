"""The benchmark of whole models runs where the tests run, and its arithmetic is right."""

import importlib
import json
from itertools import accumulate
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
TINY = (
    "--models", "smoke", "--device", "cpu", "--precision", "float32", "--route", "sdpa",
    "--seconds", "0.01", "--batch", "2",
)  # fmt: skip


@pytest.fixture
def bench(monkeypatch):
    """Imports a script of tools/bench as `python tools/bench/NAME.py` would see its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    return importlib.import_module


def rows_of(path):
    return json.loads(path.read_text())["results"]["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--recompute", "--prior", "learned")], ids=["kept", "recomputed"])
def test_every_pass_of_every_model_is_timed(bench, tmp_path, capsys, options):
    output = tmp_path / "rows.json"
    kinds = ("velocity", "auxiliary", "latent_sampler")
    bench("model").main([*TINY, *options, "--kinds", *kinds, "--optimizer", "--output", str(output)])
    found = [(row["model"], row["pass"]) for row in rows_of(output)]
    passes = ("forward", "forward + backward", "with AdamW")
    assert found == [(f"smoke {kind}", each) for kind in kinds for each in passes]
    assert "| smoke velocity " in capsys.readouterr().out


def test_the_numbers_of_a_row_agree_with_each_other(bench, tmp_path):
    output = tmp_path / "rows.json"
    bench("model").main([*TINY, "--output", str(output)])
    subject = bench("subjects").subject("smoke", "velocity", batch=2, prior="gaussian", overrides=[])
    flops = subject.cost(torch.float32, recompute=False).total.flops
    for row, forward_passes in zip(rows_of(output), (1, 3), strict=True):
        assert row["img/s"] * row["ms/img"] == pytest.approx(1000)
        assert row["ms"] == pytest.approx(2 * row["ms/img"])
        assert row["TFLOP/s"] * 1e12 == pytest.approx(forward_passes * flops * row["img/s"])


def test_results_say_where_they_come_from(bench, tmp_path):
    path = bench("common").write_json(tmp_path / "rows.json", [{"ms": 1.0}])
    document = json.loads(path.read_text())
    assert document["results"] == {"rows": [{"ms": 1.0}]}
    assert {"command", "commit", "hardware", "date", "versions", "cuda"} <= document["certificate"].keys()


def test_costs_are_printed_without_running_the_model(bench, capsys):
    bench("model").main(["--models", "paper_rgb", "paper_sdv", "--cost"])
    totals = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("total")]
    assert [(total[1], total[2]) for total in totals] == [("160.460", "119.604"), ("154.411", "88.521")]


def test_overrides_of_the_training_command_reach_the_model(bench, capsys):
    bench("model").main(["--models", "paper_rgb", "--cost", "model.velocity.augmentation=false"])
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("total"))
    # one map of 768 x 768 less
    assert float(total.split()[1]) == pytest.approx(160.460 - 0.768**2, abs=0.001)


def test_an_unknown_model_is_refused_with_the_known_ones(bench, capsys):
    with pytest.raises(SystemExit):
        bench("model").main(["--models", "paper"])
    assert "paper_rgb" in capsys.readouterr().err


def test_an_argument_that_is_neither_option_nor_override_is_refused(bench, capsys):
    with pytest.raises(SystemExit):
        bench("model").main([*TINY, "--fast"])
    assert "unknown: --fast" in capsys.readouterr().err


def test_a_measurement_is_the_median_of_calls_after_the_warmup(bench, monkeypatch):
    common = bench("common")
    calls, laps = [], [0.001, 0.009, 0.002, 0.001, 0.009]  # seconds that the clock says the calls took
    readings = accumulate(seconds for lap in laps for seconds in (0.0, lap))
    monkeypatch.setattr(common.time, "perf_counter", lambda: next(readings))
    monkeypatch.setattr(common, "seconds_taken", lambda call, device: call() or 0.01)
    found = common.measure(lambda: calls.append(1), device="cpu", warmup=2, seconds=0.05)
    assert len(calls) == 2 + 5  # five calls of an estimated 10 ms fill 50
    assert found == pytest.approx(2.0)


def test_a_table_is_markdown_with_a_column_for_every_key(bench):
    rows = [{"route": "sdpa", "ms": 0.12345}, {"route": "natten", "ms": 1234.5, "note": None}]
    assert bench("common").table(rows).splitlines() == [
        "| route  | ms    | note |",
        "|--------|-------|------|",
        "| sdpa   | 0.123 |      |",
        "| natten | 1,234 |      |",
    ]


@pytest.mark.slow
def test_every_supported_route_is_timed_in_its_directions(bench, tmp_path, capsys):
    output = tmp_path / "rows.json"
    options = (
        "--shapes",
        "1x8x8x2x16",
        "2x6x9x1x16",
        "--kernel",
        "3",
        "--device",
        "cpu",
        "--dtype",
        "float32",
    )
    bench("attention").main([*options, "--seconds", "0.01", "--output", str(output)])
    rows = rows_of(output)
    both, forward = {"forward", "forward + backward"}, {"forward"}
    expected = {"sdpa": both, "full": both, "natten": forward, "flex": forward}
    for shape in ("1x8x8x2x16", "2x6x9x1x16"):
        found = {}
        for row in rows:
            if row["shape"] == shape:
                found.setdefault(row["route"], set()).add(row["pass"])
        assert found == expected
    assert all(row["ms"] > 0 for row in rows)
    assert "| 2x6x9x1x16 | forward + backward |" in capsys.readouterr().out
