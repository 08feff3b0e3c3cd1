"""Results from embeddings that lie on several ranks have the bits of one rank's, on every rank."""

import json

import pytest

MODULE = "harness.neighbors_rank"


def reported_results(ended) -> list[dict]:
    assert [process.status for process in ended] == [0] * len(ended), "\n".join(one.output for one in ended)
    lines = [line for process in ended for line in process.output.splitlines() if line.startswith("results ")]
    return [json.loads(line.removeprefix("results ")) for line in lines]


@pytest.fixture(scope="module")
def alone(forks) -> dict:
    return reported_results([forks.start(MODULE).wait()])[0]


@pytest.mark.parametrize("ranks", [2, 4])  # three tiles of samples: one of four ranks has none
def test_every_rank_has_the_bits_of_one(forks, ranks, alone):
    assert reported_results(forks.run_on_ranks(ranks, MODULE)) == [alone] * ranks


def test_the_copies_among_the_samples_are_found(alone):
    assert alone["nearest_training"]["flag"]
    assert alone["nearest_training"]["closest"]["training"] == list(range(500, 508))
    assert 0 < alone["manifold"]["precision"] < 1
