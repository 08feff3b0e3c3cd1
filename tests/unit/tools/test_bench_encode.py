"""The benchmark of codecs runs where the tests run, from device to files."""

import importlib
import json
from pathlib import Path

import pytest

from lediflow.data.synthetic import make_synthetic_shards

BENCH = Path(__file__).parents[3] / "tools" / "bench"


@pytest.fixture
def rows(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    make_synthetic_shards(tmp_path / "images", 12, size=16, channels=3)
    tiny = ["--codecs", "taesd", "--size", "16", "--batch", "2", "4", "--seconds", "0.01", "--device", "cpu"]
    precisions = ["--precision", "float32", "bfloat16"]
    paths = ["--source", str(tmp_path / "images"), "--output", str(tmp_path / "rows.json")]
    importlib.import_module("encode").main([*tiny, *precisions, *paths])
    return json.loads((tmp_path / "rows.json").read_text())["results"]["rows"]


@pytest.mark.slow
def test_every_combination_has_a_row_that_says_the_weights_are_random(rows):
    found = [(row["precision"], row["batch"]) for row in rows]
    assert found == [("float32", 2), ("float32", 4), ("bfloat16", 2), ("bfloat16", 4)]
    assert {row["weights"] for row in rows} == {"random"}
    assert all(row["device"] > 0 and row["files"] > 0 for row in rows)
