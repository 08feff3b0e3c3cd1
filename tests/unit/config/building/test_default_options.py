"""The identity of a run: options added later are left out if they have their default, which changes nothing."""

from lediflow.config.building.inputs import without_defaults
from lediflow.training.resume import differences


def test_a_run_from_before_dropout_is_continued():
    now = {"stage": {"cap": 10.0}, "levels": [{"depth": 1, "dropout": 0.0}]}
    then = {"stage": {"cap": 10.0}, "levels": [{"depth": 1}]}
    assert differences(then, without_defaults(now)) == []


def test_one_with_another_value_is_another_run():
    then, now = {"levels": [{"depth": 1}]}, {"levels": [{"depth": 1, "dropout": 0.1}]}
    assert differences(then, without_defaults(now)) == ["levels.0.dropout: nothing, now 0.1"]


def test_zero_values_of_older_options_are_kept():
    assert without_defaults({"nll_beta": 0.0, "warm_start": None}) == {"nll_beta": 0.0, "warm_start": None}
