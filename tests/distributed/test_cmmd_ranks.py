"""Distances between sets that lie on several ranks have the bits of one rank's, on every rank."""

import json

import pytest

MODULE = "harness.cmmd_rank"


def reported_lines(ended, what: str) -> list[str]:
    assert [process.status for process in ended] == [0] * len(ended), "\n".join(one.output for one in ended)
    lines = [line for process in ended for line in process.output.splitlines() if line.startswith(what)]
    return [line.removeprefix(what).strip() for line in lines]


@pytest.fixture(scope="module")
def alone(forks) -> dict:
    return json.loads(reported_lines([forks.start(MODULE).wait()], "results")[0])


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_rank_has_the_bits_of_one(forks, ranks, alone):
    assert [json.loads(line) for line in reported_lines(forks.run_on_ranks(ranks, MODULE), "results")] == [
        alone
    ] * ranks


def test_every_rank_names_the_first_broken_row_of_the_whole_set(forks):
    # the first rank has rows below 2048 only
    said = reported_lines(forks.run_on_ranks(2, MODULE, 3000), "refusal")
    assert len(set(said)) == 1
    assert "2 of 4700 embeddings are not finite, the first is row 3000" in said[0]


def test_streaming_and_exact_agree(alone):
    exact, streaming = (
        [float.fromhex(text) for text in texts[:2]] for texts in (alone["exact"], alone["streaming"])
    )
    value, bound = streaming
    assert value <= exact[0] <= value + bound
