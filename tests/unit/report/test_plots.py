"""Plots are valid SVG in the colours of the page, and the same for the same data."""

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lediflow.report import figure, pareto, quality, training
from lediflow.report.content import BinPanel, SettingMeasurement
from lediflow.tracking.event_log import Curve

CURVE = Curve(np.arange(1, 200) * 1000, np.exp(-np.arange(1, 200) / 20) + 0.01)


def measured(method, evaluations, mmd, **others):
    return SettingMeasurement(
        method=method, solver="midpoint", steps=1, evaluations=evaluations, mmd=mmd, **others
    )


MEASUREMENTS = [
    measured("LeDiFlow", 4, 1.5, ms_per_image=9.0),
    measured("LeDiFlow", 2, 2.5, ms_per_image=7.0),
    measured("Flow matching", 2, 20.0, ms_per_image=4.0),
    measured("Flow matching", 4, None, ms_per_image=8.0),
]


MEANS = np.array([0.4, 0.2, np.nan, 0.1])
BY_SIGMA = BinPanel(
    title="Flow", caption="", axis="sigma", edges=[0.125, 0.25, 0.5, 1.0, 2.0],
    means={"LeDiFlow": MEANS, "plain": 3 * MEANS}, is_doubling=True,
)  # fmt: skip


def texts(svg: str) -> list[str]:
    """All text of a drawing; fails if the SVG is not well-formed."""
    root = ElementTree.fromstring(svg)
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(
    params=[
        lambda: training.loss_plot({"LeDiFlow": CURVE, "plain": Curve(CURVE.images_seen, CURVE.values * 3)}),
        lambda: quality.quality_plot(MEASUREMENTS, "evaluations", "CMMD", real=0.3),
        lambda: training.bin_plot(BY_SIGMA),
    ],
    ids=["loss", "quality", "bins"],
)
def draw(request):
    return request.param


def test_every_colour_is_a_variable_of_the_page(draw):
    svg = draw()
    assert re.findall(r"#[0-9a-f]{6}", svg) == []
    assert {"var(--muted)", "var(--rule)", "var(--series-1)", "var(--series-2)"} <= set(
        re.findall(r"var\(--[a-z0-9-]+\)", svg)
    )


def test_the_same_data_gives_the_same_drawing(draw):
    assert draw() == draw()


def test_lines_are_named_where_they_end_and_nowhere_else():
    names = texts(training.loss_plot({"LeDiFlow": CURVE, "plain": CURVE}))
    assert {"LeDiFlow", "plain", "images seen, thousands"} <= set(names)
    assert "loss" not in texts(training.loss_plot({"loss": CURVE}))


def test_bins_are_named_by_their_axis_and_where_their_lines_end():
    assert {"LeDiFlow", "plain", "sigma", "0.25", "0.5", "1"} <= set(texts(training.bin_plot(BY_SIGMA)))


def test_bins_that_are_all_empty_are_still_drawn():
    nothing = dataclasses.replace(BY_SIGMA, means={"LeDiFlow": MEANS * np.nan, "plain": MEANS * np.nan})
    assert "sigma" in texts(training.bin_plot(nothing))


def test_cost_is_marked_where_it_was_measured():
    shown = texts(quality.quality_plot(MEASUREMENTS, "evaluations", "CMMD", real=0.3))
    assert {"2", "4", "LeDiFlow", "Flow matching", "photographs", "CMMD, lower is better"} <= set(shown)


def test_lines_run_from_cheap_to_expensive_and_skip_what_was_not_measured():
    lines = quality.quality_lines(MEASUREMENTS, "ms_per_image")
    assert [(point.cost, point.distance) for point in lines["LeDiFlow"]] == [(7.0, 2.5), (9.0, 1.5)]
    assert len(lines["Flow matching"]) == 1


def test_solvers_are_named_where_a_method_has_several():
    heun = SettingMeasurement(method="LeDiFlow", solver="heun3", steps=1, evaluations=3, mmd=1.0)
    assert set(quality.quality_lines([*MEASUREMENTS, heun], "evaluations")) == {
        "LeDiFlow, midpoint",
        "LeDiFlow, heun3",
        "Flow matching",
    }


def test_the_dashes_of_solvers_are_explained_where_a_method_has_several():
    heun = SettingMeasurement(method="LeDiFlow", solver="heun3", steps=1, evaluations=3, mmd=1.0)
    assert quality.dash_legend(MEASUREMENTS) == ""
    assert quality.dash_legend([*MEASUREMENTS, heun]) == "Solid lines: midpoint. Dashed lines: heun3."
    assert "stroke-dasharray" in quality.quality_plot([*MEASUREMENTS, heun, heun], "evaluations", "CMMD")
    assert "stroke-dasharray" not in quality.quality_plot(MEASUREMENTS, "evaluations", "CMMD")


def test_a_rare_outlier_does_not_flatten_the_curve():
    values = np.append(np.linspace(2, 1, 999), 1000.0)
    low, high = figure.value_limits(values, is_log=False, from_zero=False)
    assert low < 1
    assert high < 3


def test_a_curve_that_is_all_nan_is_still_drawn():
    nothing = Curve(np.array([1, 2]), np.array([np.nan, np.nan]))
    assert "images seen" in texts(training.loss_plot({"loss": nothing}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses", [[1.0, 1e300, 1e308], [1e308, 1.7e308], [1e-320, 1.0], [1.5e308] * 4000])
def test_losses_near_the_ends_of_float64_are_still_drawn(losses):
    curve = Curve(np.arange(1, len(losses) + 1), np.array(losses))
    assert "images seen" in " ".join(texts(training.loss_plot({"loss": curve})))
    for is_log in (True, False):
        low, high = figure.value_limits(curve.values, is_log=is_log, from_zero=False)
        assert -np.inf < low < high < np.inf


def test_a_description_with_quotes_does_not_break_the_drawing():
    texts(training.loss_plot({'the "new" <one> & more': CURVE}))


def test_a_training_curve_is_shown_from_the_first_image_on():
    assert "0" in texts(training.loss_plot({"loss": CURVE}))


def test_heat_runs_from_dark_to_bright():
    ramp = figure.heat(np.array([[0.01, 0.1, 1.0]]), low=0.01, high=1.0)
    assert ramp.dtype == np.uint8
    assert ramp.shape == (1, 3, 3)
    assert np.all(np.diff(ramp.astype(int).sum(axis=-1)) > 0)


def test_heat_shows_ratios():
    middles = [figure.heat(np.array([[value]]), low, high) for low, value, high in [(1, 2, 4), (0.1, 1, 10)]]
    np.testing.assert_array_equal(*middles)  # the geometric middle, for any range


@pytest.mark.parametrize("value", [0.3, 0.0])
def test_heat_of_a_single_value_is_dark(value):
    flat = figure.heat(np.full((2, 2), value), low=value, high=value)
    np.testing.assert_array_equal(flat, np.broadcast_to(figure.heat(np.array([[1.0]]), 1, 2), (2, 2, 3)))


def marks(svg: str) -> int:
    """The number of marked points in a drawing."""
    return len(re.findall(r"<use [^>]*style=\"fill: var\(--series", svg))


def test_a_curve_of_one_point_is_a_mark_with_its_value():
    one = {
        name: Curve(np.array([12_500]), np.array([value]))
        for name, value in (("LeDiFlow", 0.0123), ("plain", 0.456))
    }
    assert marks(training.loss_plot(one)) == 2
    assert {"LeDiFlow 0.0123", "plain 0.456"} <= set(texts(training.loss_plot(one)))
    assert "0.0123" in texts(training.loss_plot({"LeDiFlow": one["LeDiFlow"]}))


def test_few_points_get_markers_and_many_do_not():
    few = Curve(CURVE.images_seen[:3], CURVE.values[:3])
    assert marks(training.loss_plot({"loss": few})) == 3
    assert marks(training.loss_plot({"loss": CURVE})) == 0


def test_a_short_training_is_counted_in_images():
    short = Curve(np.array([320, 640]), np.array([2.0, 1.0]))
    assert "images seen" in texts(training.loss_plot({"loss": short}))


def test_a_distance_below_zero_is_inside_the_axis():
    """The unbiased distance between two sets of one distribution is negative half of the time."""
    low, high = figure.value_limits(np.array([8.6, 8.5, -0.16]), is_log=False, from_zero=True)
    assert low < -0.16
    assert high > 8.6


@pytest.mark.parametrize("value", [0.01, 40.0, -3.0])
def test_one_value_fills_its_axis(value):
    low, high = figure.value_limits(np.array([value]), is_log=False, from_zero=False)
    assert low < value < high
    assert high - low == pytest.approx(abs(value))


def test_the_lowest_held_out_loss_is_marked_with_a_ring_on_the_curve():
    curve = Curve(np.arange(1, 101) * 10, np.linspace(2, 1, 100))
    plain = training.loss_plot({"held out": curve})
    assert training.loss_plot({"held out": curve}, {"held out": 15, "other": 20}).count(
        "<use"
    ) == plain.count("<use")
    ringed = training.loss_plot({"held out": curve}, {"held out": 300})
    assert ringed.count("<use") == plain.count("<use") + 1


def test_the_codecs_level_has_its_name_on_the_page():
    rows = [
        SettingMeasurement(method="m", solver="euler", steps=steps, evaluations=steps, mmd=1.0)
        for steps in (1, 2)
    ]
    named = "photographs", "codec"
    assert all(f">{name}<" in quality.quality_plot(rows, "evaluations", "MMD", 0.1, 0.4) for name in named)
    assert ">codec<" not in quality.quality_plot(rows, "evaluations", "MMD", 0.1)


def test_points_on_the_pareto_front_have_rings():
    """A point is off the front if another one is as good or better at the same or a lower cost."""
    rows = [
        measured("a", 2, 5.0),
        measured("a", 4, 3.0),
        measured("b", 2, 6.0),
        measured("b", 8, 3.0),
        measured("b", 9, 1.0),
    ]
    chart = pareto.quality_chart(rows, "evaluations", "CMMD", real=0.2)
    rings = {line.name: list(line.rings) for line in chart.lines}
    assert rings == {"a": [2, 4], "b": [9], "photographs": []}
    assert (chart.axis, chart.ticks, chart.is_log_x) == (quality.COSTS["evaluations"], [2, 4, 8, 9], True)
    assert chart.lines[-1].curve.values.tolist() == [0.2, 0.2]


def test_more_methods_than_colours_are_still_drawn():
    rows = [measured(f"method {number}", 2, 1.0 + number) for number in range(8)]
    assert len(pareto.quality_chart(rows, "evaluations", "CMMD").lines) == 8
    assert "method 7" in texts(quality.quality_plot(rows, "evaluations", "CMMD"))
