"""Plots as files: how lines are drawn, and files that are the same each time."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from lediflow.evaluation.plots.points import CostLine, CostPoint, is_beaten
from lediflow.evaluation.plots.prior import prior_figure
from lediflow.evaluation.plots.quality import pareto_figure
from lediflow.evaluation.plots.style import COLOURS, write_figure


def point(cost: float, value: float) -> CostPoint:
    return CostPoint(cost, value, value - 0.5, value + 0.5, f"{cost:g}")


def line(offset: float) -> list[CostPoint]:
    return [point(cost, offset + 1 / cost) for cost in (4.0, 1.0, 2.0)]


def drawn_lines(axes) -> dict[str, mpl.lines.Line2D]:
    """Named lines of a panel."""
    return {each.get_label(): each for each in axes.get_lines() if not each.get_label().startswith("_")}


def look(each: mpl.lines.Line2D) -> tuple[str, str, str]:
    return to_hex(each.get_color()), each.get_linestyle(), each.get_marker()


PANELS = {
    "milliseconds": {
        CostLine("ours", "prior alone"): [point(1.0, 3.0)],
        CostLine("ours"): line(0.0),
        CostLine("gaussian"): line(1.0),
    },
    "evaluations": {CostLine("ours"): line(0.0), CostLine("gaussian"): line(1.0)},
}


@pytest.mark.parametrize(
    ("other", "beaten"),
    [
        (point(1.0, 1.0), True),  # cheaper and better
        (point(1.0, 2.0), True),  # cheaper and as good
        (point(2.0, 1.0), True),  # as cheap and better
        (point(2.0, 2.0), False),  # the same
        (point(1.0, 3.0), False),
        (point(3.0, 1.0), False),
    ],
)
def test_a_point_is_dominated_by_one_that_is_not_worse_in_either_direction(other, beaten):
    own = point(2.0, 2.0)
    assert is_beaten(own, [own, other]) is beaten


def test_more_lines_than_colours_are_all_drawn_and_all_differ():
    names = [f"run {number}" for number in range(2 * len(COLOURS) + 1)]
    figure = pareto_figure(
        {"cost": {CostLine(name): line(place) for place, name in enumerate(names)}}, "CMMD"
    )
    found = drawn_lines(figure.axes[0])
    assert list(found) == names
    assert len({look(each) for each in found.values()}) == len(names)


def test_a_run_has_one_colour_a_solver_one_dash_and_a_temperature_one_marker():
    """For as many solvers and temperatures as grids usually have."""
    parts = (("ours", "gaussian", "coupled"), ("euler", "midpoint", "heun3", "rk4"), ("1", "0.9", "0.8"))
    all_lines = [CostLine(*each) for each in itertools.product(*parts)]
    drawn = {CostLine("ours", "prior alone", "1"): [point(1.0, 3.0)]} | {
        each: line(0.0) for each in all_lines
    }
    found = drawn_lines(pareto_figure({"cost": drawn}, "CMMD").axes[0])
    for part in range(3):
        signs = {(each[part], look(found[each.name])[part]) for each in all_lines}
        assert len(signs) == len({sign for _, sign in signs}) == len(parts[part])


@pytest.mark.parametrize(
    ("values", "scale", "has_photographs"),
    [((4.0, 0.3), "log", False), ((4.0, 0.5), "linear", True), ((4.0, -0.01), "linear", True)],
)
def test_distances_that_span_a_decade_have_a_logarithmic_axis(values, scale, has_photographs):
    """The distance between photographs, about 0, is not drawn there."""
    points = [
        CostPoint(cost, value, value - 0.1, value + 0.1, "") for cost, value in enumerate(values, start=1)
    ]
    (axes,) = pareto_figure({"cost": {CostLine("ours"): points}}, "CMMD", real=-0.001).axes
    assert axes.get_yscale() == scale
    assert ("photographs among themselves" in drawn_lines(axes)) is has_photographs


def test_a_line_looks_the_same_in_every_panel():
    first, second = (drawn_lines(axes) for axes in pareto_figure(PANELS, "CMMD").axes)
    assert {name: look(first[name]) for name in second} == {name: look(second[name]) for name in second}


def test_the_legend_names_every_line_of_every_panel_once():
    figure = pareto_figure(PANELS, "CMMD", real=0.3)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == ["gaussian", "ours", "ours, prior alone", "photographs among themselves"]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_the_legend_does_not_cover_a_panel():
    runs = {
        CostLine("a run of a rather long name", "", f"temperature {number}"): line(number)
        for number in range(9)
    }
    figure = pareto_figure({"milliseconds": runs, "evaluations": runs}, "CMMD", real=0.3)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert all(legend.y1 < axes.get_tightbbox().y0 for axes in figure.axes)
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_points_are_joined_in_the_order_of_their_cost():
    found = drawn_lines(pareto_figure(PANELS, "CMMD").axes[0])["ours"]
    assert list(found.get_xdata()) == [1, 2, 4]
    assert list(found.get_ydata()) == [1, 0.5, 0.25]


def test_ticks_are_doublings_around_all_costs():
    axes = pareto_figure({"cost": {CostLine("ours"): [point(3.0, 1.0), point(20.0, 0.5)]}}, "CMMD").axes[0]
    assert list(axes.get_xticks()) == [2, 4, 8, 16, 32]


@pytest.fixture
def calibration():
    """Statistics of a calibrated prior."""
    edges = np.linspace(-3, 3, 13)
    counts = np.ones(14)  # with those below and above
    shares = [0.5, 0.9]
    return lambda: prior_figure(edges, counts, [0.1, 0.2], [0.1, 0.2], shares, shares)


@pytest.mark.parametrize("kind", ["pareto", "prior"])
def test_a_figure_becomes_two_files_which_are_the_same_each_time(kind, tmp_path, calibration):
    draw = calibration if kind == "prior" else lambda: pareto_figure(PANELS, "CMMD", real=0.3)
    for place in ("first", "second"):
        write_figure(draw(), tmp_path / place / kind)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [f"{kind}.png", f"{kind}.svg"]
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / place / kind).with_suffix(suffix) for place in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    with Image.open(tmp_path / "first" / f"{kind}.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_text_in_an_svg_stays_text(tmp_path):
    write_figure(pareto_figure(PANELS, "CMMD"), tmp_path / "pareto")
    assert "CMMD, lower is better</text>" in (tmp_path / "pareto.svg").read_text()


def test_the_style_of_other_plots_does_not_change(tmp_path):
    before = dict(mpl.rcParams)
    write_figure(pareto_figure(PANELS, "CMMD"), tmp_path / "pareto")
    assert dict(mpl.rcParams) == before
