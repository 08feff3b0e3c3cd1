"""A grid's rows as lines of quality against cost."""

from matplotlib.figure import Figure

from lediflow.evaluation.plots.points import CostLine, CostPoint
from lediflow.evaluation.plots.quality import doubling_axis
from lediflow.evaluation.views import COSTS, line_of, pareto_lines, pareto_panels


def row(run: str, solver: str, steps: int, temperature: float = 1.0, *, ms: float = 5.0) -> dict:
    return {
        "run": run,
        "solver": solver,
        "steps": steps,
        "temperature": temperature,
        "nfe": 2 * steps,
        "ms_per_image": ms,
        "mmd_unbiased": 1.5,
        "mmd_interval": [1.25, 1.75],
    }


def names(rows: list[dict]) -> list[str]:
    return [line_of(each, rows).name for each in rows]


def test_a_narrow_range_of_costs_has_two_ticks_at_least():
    """One tick says nothing of a logarithmic axis: 22 and 37 ms have one power of two between them."""
    axes = Figure().subplots()
    doubling_axis(axes, [22.0, 37.0])
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [24, 32, 48]


def test_a_run_of_one_solver_and_temperature_is_named_by_itself():
    rows = [row("ours", "euler", 0), row("ours", "euler", 1), row("gaussian", "heun3", 1)]
    assert names(rows) == ["ours, prior alone", "ours", "gaussian"]


def test_names_contain_only_what_differs_between_runs():
    rows = [row("ours", "euler", 1), row("ours", "heun3", 1), row("gaussian", "euler", 1)]
    assert names(rows) == ["ours, euler", "ours, heun3", "gaussian"]
    rows = [row("ours", "euler", 1), row("ours", "euler", 1, 0.8)]
    assert names(rows) == ["ours, temperature 1", "ours, temperature 0.8"]


def test_draws_of_the_prior_at_two_temperatures_are_two_lines():
    rows = [row("ours", "euler", 0), row("ours", "euler", 0, 0.8)]
    assert list(pareto_lines(rows, "ms_per_image")) == [
        CostLine("ours", "prior alone", "temperature 1"),
        CostLine("ours", "prior alone", "temperature 0.8"),
    ]


def test_points_carry_cost_value_interval_and_steps():
    rows = [row("ours", "euler", 2, ms=3.0), row("ours", "euler", 4, ms=6.0)]
    assert pareto_lines(rows, "ms_per_image") == {
        CostLine("ours"): [CostPoint(3.0, 1.5, 1.25, 1.75, "2"), CostPoint(6.0, 1.5, 1.25, 1.75, "4")]
    }


def test_an_adaptive_solver_is_labelled_as_such():
    ((point,),) = pareto_lines([row("ours", "dopri5", 1)], "nfe").values()
    assert point.label == "dopri5"


def test_the_prior_alone_has_milliseconds_and_no_place_among_evaluations():
    panels = pareto_panels([row("ours", "euler", 0), row("ours", "euler", 1)])
    assert list(panels[COSTS["ms_per_image"]]) == [CostLine("ours", "prior alone"), CostLine("ours")]
    assert list(panels[COSTS["nfe"]]) == [CostLine("ours")]


def test_priors_alone_make_no_empty_panel():
    assert list(pareto_panels([row("ours", "euler", 0)])) == [COSTS["ms_per_image"]]
