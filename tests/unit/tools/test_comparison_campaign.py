"""The comparison of all methods plans commands that compose, each after those that make its runs."""

import importlib
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from harness.commands import compose

from lediflow.config.composition.checks import check_command

TOOLS = Path(__file__).parents[3] / "tools" / "campaign"
EVERY = (
    "fm",
    "ot",
    "paper",
    "auto",
    "wide",
    "wide_map",
    "fm_map",
    "both_maps",
    "fm_reflow",
    "long_map",
    "wide_mean",
)


@pytest.fixture
def campaign(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("comparison")


@pytest.fixture
def plan(campaign, monkeypatch, tmp_path):
    """The jobs of a command line."""
    found = []
    monkeypatch.setattr(campaign, "carry_out", lambda options, kind, jobs, collect: found.append(jobs))

    def planned(*words):
        fixed = ["--data", "shards", "--name", "x", "--folder", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["comparison.py", *fixed, *words])
        campaign.main()
        return found[-1]

    return planned


def test_every_training_composes_and_every_command_waits_for_its_runs(plan, tmp_path):
    jobs = plan("--methods", *EVERY)
    made = {f"{tmp_path}/{name}": name for name in jobs}
    for job in jobs.values():
        words = [word for word in job.arguments if "=" in word]
        if job.arguments[0] == "-m":
            check_command(compose("train", *words))
        keys = (
            ("run=", "sampler=") if job.name.startswith("quality_") else ("parent=", "teacher=", "sampler=")
        )
        used = {made[word.split("=", 1)[1]] for word in words if word.startswith(keys)}
        assert {*job.needs} == used
    assert {*jobs["quality_both_maps"].needs} == {"wide_map", "sampler_map"}
    assert {*jobs} == {
        "auxiliary",
        "sampler",
        "sampler_map",
        *EVERY,
        *(f"quality_{name}" for name in EVERY),
    } - {"both_maps"}


def test_a_longer_distillation_and_meanflow_learn_from_the_same_teacher(plan, tmp_path):
    given = (
        "--distil",
        "train.images=64",
        "--longer",
        "train.images=128",
        "--wide",
        "0.8",
        "--wide-scale",
        "1",
    )
    jobs = plan("--methods", "wide", "wide_map", "long_map", "wide_mean", *given)
    images = {
        name: [word for word in jobs[name].arguments if word.startswith("train.images=")]
        for name in ("wide_map", "long_map", "wide_mean")
    }
    assert {name: words[-1] for name, words in images.items()} == {
        "wide_map": "train.images=64", "long_map": "train.images=128", "wide_mean": "train.images=64",
    }  # fmt: skip
    for name in images:
        assert f"teacher={tmp_path}/wide" in jobs[name].arguments
        assert {"stage.prior_scale=1", "stage.prior_widening=0.8"} <= {*jobs[name].arguments}
    samplers = {name for name in images if f"sampler={tmp_path}/sampler" in jobs[name].arguments}
    assert samplers == {"wide_map", "long_map"}, "MeanFlow has no paths that begin at latents of the sampler"


def test_methods_without_latents_need_no_auxiliary_model(plan):
    assert {*plan("--methods", "fm")} == {"fm", "quality_fm"}


def test_teachers_that_were_measured_before_are_only_trained(plan):
    jobs = plan("--methods", "wide", "wide_map", "--unmeasured", "wide")
    assert {*jobs} == {"auxiliary", "sampler", "wide", "wide_map", "quality_wide_map"}
    with pytest.raises(SystemExit, match="--unmeasured auto: not among --methods wide"):
        plan("--methods", "wide", "--unmeasured", "auto")


def test_every_seed_has_models_of_its_own(plan, tmp_path):
    jobs = plan("--methods", "auto", "--seeds", "0", "7")
    assert {*jobs["quality_auto_7"].needs} == {"auto_7", "sampler_7"}
    for name in ("auxiliary_7", "auto_7", "sampler_7", "quality_auto_7"):
        assert "seed=7" in jobs[name].arguments
        assert not any(
            word.endswith((f"{tmp_path}/auxiliary", f"{tmp_path}/auto")) for word in jobs[name].arguments
        )
    assert f"parent={tmp_path}/auxiliary" in jobs["auto_0"].arguments


def test_unknown_methods_are_refused(plan):
    with pytest.raises(SystemExit, match="flow: not known; choose of fm"):
        plan("--methods", "fm", "flow")


def test_methods_without_the_flow_that_they_need_are_refused(plan):
    with pytest.raises(SystemExit, match="wide_map needs the flow of wide; add wide"):
        plan("--methods", "wide_map")
    with pytest.raises(SystemExit, match="both_maps needs the flow of wide_map"):
        plan("--methods", "wide", "both_maps")


def test_the_seed_of_other_campaigns_is_not_ignored(plan, capsys):
    with pytest.raises(SystemExit):
        plan("--methods", "fm", "--seed", "3")
    assert "give --seeds 3" in capsys.readouterr().err


def test_what_is_kept_of_a_measurement(campaign):
    row = {
        "solver": "euler", "steps": 1, "nfe": 1, "mmd_unbiased": 4.0, "mmd_interval": [3.9, 4.1], "ms_per_image": 3.0,
        "against_heldout": {"mmd_unbiased": 4.2, "mmd_interval": [3.0, 5.0], "reference_images": 600},
        "nearest_training": {"share_memorised": 0.0, "share_closer": 0.4, "closest": []},
    }  # fmt: skip
    found = campaign.method_of({"prior_scale": 3.0, "prior_widening": 0.5, "rows": [row]})
    assert found == {
        "k": 3.0,
        "s": 0.5,
        "rows": [
            {
                "solver": "euler", "steps": 1, "nfe": 1, "mmd_unbiased": 4.0, "mmd_interval": [3.9, 4.1],
                "held_out": 4.2, "held_out_interval": [3.0, 5.0], "share_closer": 0.4, "share_memorised": 0.0,
            }
        ],
    }  # fmt: skip


def test_distances_to_a_codec_are_kept(campaign):
    row = {
        "solver": "jump", "steps": 1, "nfe": 1, "mmd_name": "MMD", "sample_images": 8, "reference_images": 120,
        "mmd_unbiased": 1.4, "mmd_interval": [1.3, 1.5],
        "against_heldout": {"mmd_unbiased": 1.5, "mmd_interval": [1.0, 2.0], "reference_images": 6},
        "against_reconstructions": {"mmd_unbiased": 0.6, "mmd_interval": [0.5, 0.7], "reference_images": 120},
    }  # fmt: skip
    found = {"prior_scale": 1.0, "prior_widening": 0.8, "rows": [row], "codec_floor": {"mmd_unbiased": 0.9}}
    (kept,) = campaign.method_of(found)["rows"]
    assert (kept["decoded"], kept["decoded_interval"]) == (0.6, [0.5, 0.7])
    assert campaign.facts_of({"wide_map": found})["codec_floor"] == 0.9


def test_settings_are_a_solver_and_its_steps(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    measure = importlib.import_module("measure")
    assert measure.setting("midpoint:4") == ("midpoint", 4)
    with pytest.raises(ArgumentTypeError, match="a solver and its steps"):
        measure.setting("midpoint")
    with pytest.raises(ArgumentTypeError, match="did you mean 'midpoint'"):
        measure.setting("midpont:4")
