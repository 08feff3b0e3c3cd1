"""The benchmarks of loading run where the tests run, and what they call well mixed is."""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[3] / "tools" / "bench"


@pytest.fixture
def bench(monkeypatch):
    """Imports a benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def rows_of(module, tmp_path, *arguments):
    module.main([*arguments, "--output", str(tmp_path / "rows.json")])
    return json.loads((tmp_path / "rows.json").read_text())["results"]["rows"]


@pytest.mark.processes
def test_loaders_are_compared_on_the_same_samples(bench, tmp_path):
    options = ("--latents", "200", "--pictures", "40", "--seconds", "0.2", "--workers", "0")
    rows = rows_of(bench("loader"), tmp_path, *options, "--loaders", "lediflow", "webdataset")
    assert [(row["samples"], row["loader"]) for row in rows] == [
        ("latents", "lediflow"), ("latents", "webdataset"), ("pictures", "lediflow"), ("pictures", "webdataset"),
    ]  # fmt: skip
    assert all(row["samples/s"] > 0 and row["peak MiB"] > 0 for row in rows)
    assert [row["ratio"] for row in rows if row["loader"] == "webdataset"] == [1.0, 1.0]
    latents = [row["MB/s"] / row["samples/s"] for row in rows if row["samples"] == "latents"]
    assert latents == pytest.approx([8 * 32 * 32 * 2 / 1e6] * 2)  # float16, as many bytes a sample in both


def test_ranges_and_whole_shards_are_timed_from_disk_and_web(bench, tmp_path):
    rows = rows_of(
        bench("reading"), tmp_path, "--mib", "1", "--ranks", "1", "--delay-ms", "0", "--seconds", "1"
    )
    found = [(row["from"].split(",")[0], row["read"]) for row in rows]
    assert found == [("cold disk", "ranges"), ("cold disk", "whole"), ("http", "ranges"), ("http", "whole")]
    assert all(row["samples/s"] > 0 for row in rows)


@pytest.mark.parametrize("batch", [4, 16])
def test_batches_of_neighbours_have_a_spread_of_the_root_of_their_size(bench, batch):
    shuffle = bench("shuffle")
    stored = np.arange(64 * batch)
    assert shuffle.spread(stored, batch) == pytest.approx(np.sqrt(batch), rel=0.01)
    assert shuffle.neighbour_distance(stored) == pytest.approx(3 / len(stored))
    assert shuffle.mates_again(stored, stored, batch) == pytest.approx((len(stored) - 1) / (batch - 1))


def test_a_window_over_all_shards_is_a_perfect_shuffle_by_every_measure(bench):
    chosen = argparse.Namespace(shards=16, shard_samples=64, batch=16, epochs=20)
    row = bench("shuffle").quality(0, chosen)
    assert row["spread"] == pytest.approx(1, abs=0.05)  # 21 epochs of 64 batches: its deviation is 0.02
    assert row["neighbours"] == pytest.approx(1, abs=0.02)
    assert row["mates"] == pytest.approx(1, abs=0.05)
    expected = 16 * (1 - (1 - 1 / 16) ** 16)  # shards hit by sixteen draws, nearly
    assert row["shards"] == pytest.approx(expected, rel=0.02)
