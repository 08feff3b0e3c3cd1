"""The plot of stages.json: a line for each source of z, and the prior alone."""

import pytest

from lediflow.evaluation.modes.stages.record import run_losses, stage_lines
from lediflow.evaluation.plots.points import CostLine, CostPoint
from lediflow.evaluation.plots.quality import stages_figure


def row(z, solver, steps, nfe, mmd):
    return {
        "z": z,
        "solver": solver,
        "steps": steps,
        "nfe": nfe,
        "mmd": mmd,
        "low": mmd - 0.1,
        "high": mmd + 0.1,
    }


ROWS = [
    row("training", "none", 0, 0, 6.0),
    row("training", "midpoint", 2, 4, 0.5),
    row("gaussian", "midpoint", 2, 4, 3.0),
]


def test_each_source_is_a_line_by_its_name():
    lines = stage_lines({"rows": ROWS})
    assert lines[CostLine("z of training images")] == [
        CostPoint(0, 6.0, pytest.approx(5.9), pytest.approx(6.1), "0"),
        CostPoint(4, 0.5, pytest.approx(0.4), pytest.approx(0.6), "2"),
    ]
    assert list(lines) == [CostLine("z of training images"), CostLine("Gaussian noise (flow matching)")]


def test_several_solvers_are_several_lines():
    lines = stage_lines({"rows": [*ROWS, row("training", "heun3", 1, 3, 0.7)]})
    assert {line.solver for line in lines if line.run == "z of training images"} == {"midpoint", "heun3"}


def test_the_plot_has_lines_of_codec_and_photographs_and_the_prior_at_the_left():
    figure = stages_figure(
        stage_lines({"rows": ROWS}), "MMD (X)", heading="What", text="Because.", real=0.0, floor=0.2
    )
    (axes,) = figure.axes
    assert axes.get_xlim()[0] < 2 < 4  # half of the fewest evaluations is the prior's place
    named = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
    assert named["the codec's reconstructions"] == 0.2
    assert figure.get_suptitle() == "What\nBecause."


def labels_of(*rows):
    (axes,) = stages_figure(stage_lines({"rows": rows}), "MMD (X)", heading="What", text="Because.").axes
    return [text.get_text() for text in axes.texts]


def test_points_at_one_place_share_a_label_and_distant_ones_have_their_own():
    near = [row(z, "midpoint", steps, 2 * steps, 3.0 + shift)
            for z, shift in (("training", 0.0), ("heldout", 0.01)) for steps in (1, 2)]  # fmt: skip
    assert labels_of(*near) == ["1", "2"]
    assert labels_of(*near, row("gaussian", "midpoint", 1, 2, 9.0)) == ["1", "1", "2"]
    assert labels_of(*near, row("training", "euler", 2, 2, 3.0)) == ["1 / 2", "2"]


def test_losses_are_the_last_ones_and_the_least_with_its_place(tmp_path):
    events = tmp_path / "events.jsonl"
    training = [
        f'{{"time": "2026-01-01", "event": "train", "images_seen": {n}, "loss": {20 - n}}}'
        for n in range(1, 21)
    ]
    held_out = [f'{{"time": "2026-01-01", "event": "validation", "images_seen": {n}, "loss": {loss}}}'
                for n, loss in ((5, 3.0), (10, 1.0), (20, 2.0))]  # fmt: skip
    events.write_text("\n".join([*training, *held_out]) + "\n")
    assert run_losses(events) == {
        "training": 0.5, "images_seen": 20, "held_out": 2.0, "held_out_minimum": 1.0, "held_out_minimum_at": 10,
    }  # fmt: skip
    assert run_losses(tmp_path / "none.jsonl") == {}
