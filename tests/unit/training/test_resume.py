"""Where two runs differ, in words."""

import pytest

from lediflow.training.resume import differences, with_recorded_width

RUN = {
    "seed": 0,
    "stage": {"name": "flow", "cap": 10.0},
    "levels": [{"depth": 1}, {"depth": 4}],
    "parent": None,
}


def test_a_run_does_not_differ_from_itself():
    assert differences(RUN, dict(RUN)) == []


def test_only_what_differs_is_named_with_its_place():
    other = RUN | {"stage": {"name": "flow", "cap": 5.0}, "levels": [{"depth": 1}, {"depth": 2}]}
    assert differences(RUN, other) == ["levels.1.depth: 4, now 2", "stage.cap: 10.0, now 5.0"]


def test_keys_present_in_only_one_differ():
    assert differences({"seed": 0}, {"seed": 0, "prior": "learned"}) == ["prior: nothing, now learned"]
    assert differences(RUN, RUN | {"levels": [{"depth": 1}]}) == ["levels.1.depth: 4, now nothing"]


def widened(width):
    return RUN | {"stage": RUN["stage"] | {"prior_widening": width}}


@pytest.mark.parametrize("asked", [0, 0.0, "auto"])
def test_a_run_that_began_without_the_width_option_continues_unwidened(asked):
    assert with_recorded_width(RUN, widened(asked)) == RUN


def test_a_run_that_began_without_the_width_option_ignores_a_new_scale_of_its_experiment():
    asked = widened("auto")
    assert with_recorded_width(RUN, asked | {"stage": asked["stage"] | {"prior_scale": 3.0}}) == RUN


@pytest.mark.parametrize(
    ("found", "asked"), [(None, 0.3), (0.3, "auto"), ("auto", 0), (0, "auto"), ("auto", 0.3)]
)
def test_another_width_is_another_run(found, asked):
    then = RUN if found is None else widened(found)
    (difference,) = differences(then, with_recorded_width(then, widened(asked)))
    assert difference == f"stage.prior_widening: {'nothing' if found is None else found}, now {asked}"


@pytest.mark.parametrize(("began", "kept"), [({}, {}), ({"prior_scale": 3.0}, {"prior_scale": 3.0})])
def test_an_automatic_scale_is_the_one_that_the_run_began_with(began, kept):
    then, now = widened("auto"), widened("auto")
    then["stage"] |= began
    now["stage"] |= {"prior_scale": "auto"}
    assert with_recorded_width(then, now)["stage"] == widened("auto")["stage"] | kept


def test_another_scale_is_another_run():
    then, now = widened(0.3), widened(0.3)
    then["stage"] |= {"prior_scale": "auto"}
    now["stage"] |= {"prior_scale": 2.0}
    assert differences(then, with_recorded_width(then, now)) == ["stage.prior_scale: auto, now 2.0"]
