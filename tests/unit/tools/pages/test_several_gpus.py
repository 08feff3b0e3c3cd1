"""Tables of several GPUs: efficiency against one GPU of the same engine, and differences from one process."""

import pytest

from pages.speed import several_gpus


def row(engine, ranks, batch, rate, model="m"):
    return {
        "model": model, "stage": "flow", "engine": engine, "ranks": ranks, "batch": batch, "ms": 1000 * batch / rate,
        "img/s": float(rate), "peak GiB": 1.0,
    }  # fmt: skip


ROWS = [
    row("local", 1, 64, 1000), row("zero", 1, 64, 800), row("zero", 2, 128, 1560), row("zero", 2, 64, 1200),
    row("other", 2, 128, 1600), row("zero", 4, 256, 2400), row("zero", 2, 128, 700, model="n"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "expected", "goal"),
    [
        (0, None, ""),
        (2, 97.5, "97: met"),  # weak: twice the 800 images/s that one GPU makes of batches of 64
        (3, 75.0, ""),  # strong: the 64 images that one GPU has are shared by two
        (4, None, ""),  # one GPU was not measured with this engine
        (5, 75.0, ""),  # nothing was asked of four
        (6, None, ""),  # nor was this model on one GPU
    ],
)
def test_efficiency_is_against_one_gpu_of_the_same_engine(number, expected, goal):
    found = several_gpus.efficiency(ROWS[number], ROWS)
    assert found == (None if expected is None else pytest.approx(expected))
    assert several_gpus.goal(ROWS[number], ROWS, found) == goal


def test_a_missed_goal_says_so():
    rows = [ROWS[1], row("zero", 2, 128, 1500)]
    assert "| 93.8 | 97: missed |" in several_gpus.training_lines(rows)[-1]


def test_differences_are_relative_and_of_the_same_steps():
    losses = {
        "one process": {"16": 2.0, "32": 1.0},
        "two ranks": {"16": 2.0, "32": 1.01},
    }
    assert several_gpus.losses_lines({"e": losses})[2:] == ["| e | two ranks | 2 | 1.0e-02 |"]
    with pytest.raises(ValueError, match="1 steps are compared with 2"):
        several_gpus.difference({"16": 2.0}, losses["one process"])


def test_results_of_several_gpus_are_compared_with_those_of_one():
    one = {"command": "encode", "images": 100, "ranks": 1, "img/s": 10.0, "seconds": 20.0, "digest": "a"}
    two = {**one, "ranks": 2, "img/s": 15.0}
    lines = several_gpus.data_lines([one, two, {**two, "digest": "b"}])
    assert [line.split(" | ")[4:] for line in lines[2:]] == [
        ["", "20", " |"],
        ["75", "20", "yes |"],
        ["75", "20", "no |"],
    ]


def test_saves_are_listed_by_the_number_of_gpus_that_wrote_them():
    start = {"ranks": 2, "from": 0, "to": 1280, "micro_batch": 32, "peak GiB": 9.5}
    saves = [
        {"ranks": 2, "seconds": 2.0, "waited_seconds": 0.05},
        {"ranks": 2, "seconds": 3.0, "waited_seconds": 0.04},
        {"ranks": 1, "seconds": 4.0, "waited_seconds": 0.1},
    ]
    lines = several_gpus.run_lines({"starts": [start], "saves": saves})
    assert lines[2] == "| 1 | 2 | 0 to 1,280 | 32 |  | 9.5 |  |"
    assert lines[-2:] == ["| 1 GPU | 1 | 4 | 100 |", "| 2 GPUs | 2 | 2 to 3 | 40 to 50 |"]
