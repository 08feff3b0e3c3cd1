"""The campaign of flow maps plans commands that compose, each after those that make its runs."""

import importlib
import sys
from pathlib import Path

import pytest
from harness.commands import compose

from lediflow.config.composition.checks import check_command

TOOLS = Path(__file__).parents[3] / "tools" / "campaign"


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """The jobs of a command line."""
    monkeypatch.syspath_prepend(str(TOOLS))
    campaign, found = importlib.import_module("flow_maps"), []
    monkeypatch.setattr(campaign, "carry_out", lambda options, kind, jobs, collect: found.append(jobs))

    def planned(*words):
        fixed = ["--data", "shards", "--name", "x", "--folder", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["flow_maps.py", *fixed, *words])
        campaign.main()
        return found[-1]

    return planned


def test_every_command_composes_and_waits_for_its_runs(plan):
    jobs = plan("--maps", "base=", "four=stage.teacher_steps=4", "--reflow")
    for job in jobs.values():
        _, module, *words = job.arguments
        compose(module.removeprefix("lediflow."), *words)
        assert {*job.needs} <= {*jobs}
    assert {*jobs["sampler_four"].needs} == {"sampler"}
    assert {*jobs["quality_both_base"].needs} == {"flow_base", "sampler_base"}


def test_a_flow_of_another_width_is_trained_and_distilled(plan, tmp_path):
    jobs = plan("--widths", "wide=stage.prior_scale=3,stage.prior_widening=0.5", "--sampled", "teacher")
    for name in ("teacher_wide", "flow_wide"):
        compose("train", *jobs[name].arguments[2:])
    assert "stage.prior_widening=0.5" in jobs["teacher_wide"].arguments
    assert f"teacher={tmp_path}/teacher_wide" in jobs["flow_wide"].arguments
    assert {*jobs["flow_wide"].needs} == {"teacher_wide", "sampler"}
    assert jobs["teacher_wide"].needs == ("auxiliary",)
    assert {*jobs["quality_flow_wide"].needs} == {"flow_wide", "sampler"}


@pytest.mark.parametrize(("source", "run"), [("teacher", "sampler"), ("map", "sampler_base")])
def test_paths_of_the_flow_can_start_from_latents_of_the_sampler_or_of_its_map(plan, tmp_path, source, run):
    jobs = plan("--sampled", source, "--reflow")
    assert f"sampler={tmp_path}/{run}" in jobs["flow_base"].arguments
    assert {*jobs["flow_base"].needs} == {"flow", run}
    assert f"sampler={tmp_path}/sampler" in jobs["flow_reflow"].arguments
    assert not any(word.startswith("sampler=") for word in jobs["fm_base"].arguments)
    for job in ("flow_base", "flow_reflow"):
        compose("train", *jobs[job].arguments[2:])


def test_meanflow_is_a_map_without_paths(plan):
    jobs = plan("--maps", "base=", "mean=stage.objective=meanflow", "--sampled", "map")
    assert not any(word.startswith("sampler=") for word in jobs["flow_mean"].arguments)
    for kind in ("flow", "sampler", "fm"):
        command = compose("train", *jobs[f"{kind}_mean"].arguments[2:])
        assert command.stage.objective == "meanflow"
        check_command(command)


def test_given_teachers_are_not_trained(plan):
    jobs = plan("--chain", "a", "b", "c", "--baseline", "d")
    assert not {"auxiliary", "flow", "sampler", "fm"} & {*jobs}
    assert "teacher=c" in jobs["sampler_base"].arguments and jobs["sampler_base"].needs == ()


def test_a_campaign_that_goes_on_keeps_its_earlier_sessions(plan, tmp_path):
    jobs, file = sys.modules["jobs"], tmp_path / "flow_maps_x.json"
    certificate = {"command": "c", "date": "today", "hardware": {"gpus": []}}
    found = {"rows": {"flow_euler": []}, "sessions": [{"wall_minutes": 3.0}]}
    jobs.write_results(file, found, certificate)
    assert jobs.session_clock(file, certificate, 2)()[0]["wall_minutes"] == 3.0
    assert len(jobs.session_clock(file, certificate | {"command": "another"}, 2)()) == 1
