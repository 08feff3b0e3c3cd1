"""The benchmark of logging runs where the tests run, and its shares agree with its times."""

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "tools" / "bench"
VIEWS = ("event log", "and progress", "and TensorBoard")


def test_each_view_has_its_time_and_share(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(BENCH))
    bench = importlib.import_module("tracking")
    monkeypatch.setattr(bench, "STEPS_PER_SECOND", 200.0)
    output = tmp_path / "rows.json"
    bench.main(["--seconds", "0.1", "--views", *VIEWS, "--output", str(output)])
    collecting, *rows = json.loads(output.read_text())["results"]["rows"]
    assert [row["logging"] for row in rows] == [*VIEWS]
    assert collecting["% if each"] == collecting["% of step"] == pytest.approx(collecting["ms"] * 20)
    for row in rows:
        sparser = row["ms"] * (1 - 1 / bench.SPARSE)
        assert row["% if each"] - row["% of step"] == pytest.approx(sparser * 20)
        assert row["% of step"] > row["ms"] / bench.SPARSE * 20
    assert "| and TensorBoard " in capsys.readouterr().out
