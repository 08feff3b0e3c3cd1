"""Options at their defaults: what of them is a part of a run's identity, and one whose default depends on others."""

import pytest
from harness.commands import compose

from lediflow.config.building.inputs import stage_options, without_defaults
from lediflow.config.building.run import engine_options
from lediflow.training.resume import differences


def test_a_run_from_before_dropout_is_continued():
    now = {"stage": {"cap": 10.0}, "levels": [{"depth": 1, "dropout": 0.0}]}
    then = {"stage": {"cap": 10.0}, "levels": [{"depth": 1}]}
    assert differences(then, without_defaults(now)) == []


@pytest.mark.parametrize(
    ("stage", "classes", "is_recorded"),
    [("latent_sampler", 0, False), ("latent_sampler", 2, True), ("flow", 0, True), ("flow", 2, True)],
)
def test_the_share_without_classes_is_left_out_where_older_runs_did_not_record_it(
    stage, classes, is_recorded
):
    command = compose("train", "experiment=smoke", f"stage={stage}", f"model.velocity.num_classes={classes}")
    assert ("label_dropout" in stage_options(command)) is is_recorded


def test_one_with_another_value_is_another_run():
    then, now = {"levels": [{"depth": 1}]}, {"levels": [{"depth": 1, "dropout": 0.1}]}
    assert differences(then, without_defaults(now)) == ["levels.0.dropout: nothing, now 0.1"]


def test_zero_values_of_older_options_are_kept():
    assert without_defaults({"nll_beta": 0.0, "warm_start": None}) == {"nll_beta": 0.0, "warm_start": None}


@pytest.mark.parametrize(
    ("options", "is_recorded"),
    [([], None), (["stage.coupling=optimal_transport"], False), (["engine.cuda_graphs=true"], True)],
)
def test_passes_are_recorded_by_default_unless_they_wait_for_the_cpu(options, is_recorded):
    command = compose("train", "experiment=smoke", "stage=flow", "prior=gaussian", *options)
    assert engine_options(command).cuda_graphs is is_recorded
