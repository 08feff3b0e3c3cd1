"""What the page's script draws: few points, every spike, strict JSON."""

import json

import numpy as np
import pytest
from harness.run_logs import windows, write_run

from lediflow.records import RecordError
from lediflow.report.charts import MOST_POINTS, Chart, Line, charts_json, keep_extremes
from lediflow.report.collect import report_data
from lediflow.report.configurations import configurations
from lediflow.report.curves import chart_groups
from lediflow.report.runs import method_of, read_run, with_distinct_titles
from lediflow.tracking.event_log import Curve


def strict(text):
    """JSON without NaN and Infinity, which `json` would read."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def noisy(points, seed=0):
    values = np.random.default_rng(seed).lognormal(size=points)
    return Curve(np.arange(1, points + 1) * 512, values)


def drawn(*curves):
    lines = [Line(name=f"run {place}", curve=curve, colour=1) for place, curve in enumerate(curves)]
    return strict(charts_json([Chart(title="loss", lines=lines)], 10_000))[0]["lines"]


@pytest.mark.parametrize("place", [0, 1, 123_456, 999_998, 999_999])
def test_a_spike_of_one_step_among_a_million_is_kept_at_its_place(place):
    curve = noisy(1_000_000)
    curve.values[place] = 1e6
    kept = keep_extremes(curve, MOST_POINTS)
    assert len(kept.values) <= MOST_POINTS
    assert kept.images_seen[kept.values.argmax()] == 512 * (place + 1)
    assert (kept.images_seen[0], kept.images_seen[-1]) == (512, 512_000_000)


def test_a_short_curve_keeps_all_of_its_points():
    curve = noisy(MOST_POINTS)
    (line,) = drawn(curve)
    assert line["x"] == curve.images_seen.tolist() and line["points"] == MOST_POINTS
    np.testing.assert_allclose(line["y"], curve.values, rtol=1e-4)


def test_a_page_of_many_long_curves_stays_below_five_megabytes():
    curve = noisy(10_000)
    charts = [Chart(title="loss", lines=[Line(name="run", curve=curve, colour=1)] * 6) for _ in range(20)]
    text = charts_json(charts, 90_000)
    assert len(text) < 3_000_000
    assert sum(len(line["x"]) for chart in strict(text) for line in chart["lines"]) <= 99_000


def test_values_that_are_no_finite_numbers_are_marked_and_interrupt_the_line():
    curve = Curve(np.arange(1, 6) * 10, np.array([1.0, np.nan, 2.0, np.inf, -np.inf]))
    (line,) = drawn(curve)
    assert line["y"] == [1, None, 2, None, None]
    assert line["faults"] == [[20, "NaN"], [40, "Infinity"], [50, "-Infinity"]]
    words = Line(name="loss", curve=curve, colour=1).faults
    assert words == "loss: NaN at 20 images, Infinity at 40 images, -Infinity at 50 images"


def test_a_nan_of_one_step_among_many_is_marked():
    curve = noisy(100_000)
    curve.values[50_000] = np.nan
    (line,) = drawn(curve)
    assert line["faults"] == [[512 * 50_001, "NaN"]] and None in line["y"]


def test_one_point_is_drawn_and_nothing_but_nan_too():
    one, nothing = drawn(Curve(np.array([7]), np.array([0.5])), Curve(np.array([7]), np.array([np.nan])))
    assert (one["x"], one["y"], one["smooth"]) == ([7], [0.5], None)
    assert (nothing["y"], nothing["faults"]) == ([None], [[7, "NaN"]])


def test_names_cannot_end_the_script_element():
    name = "</script><script>alert(1)</script><!--"
    text = charts_json([Chart(title=name, lines=[Line(name=name, curve=noisy(3), colour=1)])], 100)
    assert "<" not in text and strict(text)[0]["title"] == name


def test_a_schedule_has_no_line_of_means_and_noise_has():
    schedule = Curve(np.arange(100), np.minimum(np.arange(100), 20.0))
    assert [line["smooth"] is None for line in drawn(schedule, noisy(100))] == [True, False]


# --- which charts there are


@pytest.fixture
def runs(tmp_path):
    held_out = [(40, "validation", 200, {"loss": 0.5, "averaged_loss": 0.4})]
    rows = {
        "a/flow": ("flow", "learned", "train: {learning_rate: 0.1}\nrun: a/flow\ndata: {token: abc}\n"),
        "b/flow": (
            "flow",
            "learned",
            "train: {learning_rate: 0.2, new: 1}\nrun: b/flow\ndata: {token: xyz}\n",
        ),
        "base": ("flow", "gaussian", "train: {learning_rate: 0.1}\n"),
        "aux": ("auxiliary", "learned", "name: aux\n"),
    }
    return [
        read_run(write_run(tmp_path / name, windows(3) + held_out, stage=stage, prior=prior, options=options))
        for name, (stage, prior, options) in rows.items()
    ]


def test_runs_of_one_kind_are_labelled_by_their_paths(runs):
    assert [run.title for run in with_distinct_titles(runs)] == ["a/flow", "b/flow", "Flow matching", "aux"]
    assert [run.title for run in with_distinct_titles(runs[1:])] == ["LeDiFlow", "Flow matching", "aux"]
    assert [run.title for run in with_distinct_titles([runs[0], runs[0]])] == ["flow", "flow"]


@pytest.mark.parametrize(
    ("prior", "options", "name"),
    [
        ("gaussian", {}, "Flow matching"),
        ("gaussian", {"coupling": "optimal_transport"}, "OT-CFM"),
        ("gaussian", {"objective": "flow_map"}, "Flow matching, flow map"),
        ("learned", {"coupling": "independent", "objective": "velocity"}, "LeDiFlow"),
        ("learned", {"objective": "meanflow"}, "LeDiFlow, MeanFlow"),
    ],
)
def test_a_run_is_named_after_the_method_that_trained_it(prior, options, name):
    assert method_of({"prior": prior, "identity": {"stage": options}}) == name


def test_every_number_has_a_chart_with_a_line_for_each_run_and_its_held_out_samples(runs):
    auxiliary, flow = chart_groups(with_distinct_titles(runs))
    assert (auxiliary.title, flow.title) == ("Auxiliary model", "Flow")
    assert [chart.title for chart in flow.charts] == ["Loss", "Held-out loss, averaged weights", "Throughput"]
    assert flow.charts[2].unit == "images/s"
    names = [(line.name, line.is_dashed) for line in flow.charts[0].lines]
    assert names[:2] == [("a/flow", False), ("a/flow, held out", True)] and len(names) == 6
    assert [line.name for line in auxiliary.charts[0].lines] == ["training", "held out"]


def test_both_runs_of_a_method_are_in_the_plots_of_the_page(runs):
    panels = {panel.title: panel for panel in report_data(runs, title="", lead="", commands=[]).panels}
    assert list(panels["Auxiliary model"].curves) == ["training", "held out"]


def test_options_that_differ_are_listed_and_secrets_are_not_shown(runs):
    flow, auxiliary = configurations(with_distinct_titles(runs))
    assert flow.runs == ["a/flow", "b/flow", "Flow matching"]
    assert flow.differing == {
        "train.learning_rate": ["0.1", "0.2", "0.1"],
        "data.token": ["***", "***", None],
        "train.new": [None, "1", None],
    }
    assert "abc" not in str(flow.options) and auxiliary.differing == {}


def test_a_run_that_has_not_ended_is_shown_with_what_it_has(tmp_path):
    options = "stage: {name: flow}\nprior: gaussian\ndata: {held_out_fraction: 0.1}\n"
    folder = write_run(tmp_path / "flow", windows(2), options=options)
    (folder / "export" / "config.json").unlink()
    data = report_data([read_run(folder)], title="", lead="", commands=[])
    assert data.runs[0].cells["images"] == "200 so far" and data.chart_groups[0].title == "Flow"
    (folder / "config.yaml").write_text("other: 1\n")
    with pytest.raises(RecordError, match="does not hold the options of a training"):
        read_run(folder)
