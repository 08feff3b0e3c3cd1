"""Parsing of command lines of lediflow.submit."""

from pathlib import Path

import pytest
from harness.commands import compose_raw, invoke

from lediflow.cluster.jobs import SlurmConfig
from lediflow.config.submission.requests import (
    Request,
    check_ranks,
    job_record,
    parse_request,
    slurm_options,
    swept,
)
from lediflow.errors import UserError

SMOKE = ["experiment=smoke", "stage=auxiliary", "data.path=shards"]


def test_options_of_slurm_and_of_the_command_are_separated():
    arguments = [
        "experiment=smoke",
        "slurm=one_gpu",
        "+slurm.environment={A: b}",
        "slurm.nodes=2",
        "command=train",
        "seed=3",
    ]
    request = parse_request(arguments)
    assert request == Request(
        "train",
        ["experiment=smoke", "seed=3"],
        ["slurm=one_gpu", "+slurm.environment={A: b}", "slurm.nodes=2"],
    )


def test_the_runs_folder_applies_to_both_sides():
    request = parse_request(["paths.runs=elsewhere"])
    assert request.overrides == request.slurm == ["paths.runs=elsewhere"]


def test_an_unknown_command_is_refused():
    with pytest.raises(UserError, match=r"command=trian cannot be submitted; choose one of train, prepare"):
        parse_request(["command=trian"])


def test_each_combination_of_a_sweep_is_a_job():
    found = [everything for everything, _ in swept(["a=1,2", "b=x", "c=range(0,2)"])]
    assert found == [
        ["a=1", "b=x", "c=0"],
        ["a=1", "b=x", "c=1"],
        ["a=2", "b=x", "c=0"],
        ["a=2", "b=x", "c=1"],
    ]
    assert [sweep for _, sweep in swept(["a=1,2", "b=x"])] == [["a=1"], ["a=2"]]


def test_lists_and_quoted_commas_are_not_sweeps():
    assert len([*swept(["model.levels=[1,2]", "name='a,b'"])]) == 1


def test_the_command_of_a_job_has_the_absolute_path_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = job_record(parse_request(SMOKE), [*SMOKE, "run=some/run"], [], Path("some"), SlurmConfig())
    assert record.name == "run"
    assert record.run == str(tmp_path / "some/run")
    assert record.command == ["lediflow.train", *SMOKE, f"run='{tmp_path}/some/run'"]
    assert record.folder == str(tmp_path)


def test_jobs_of_a_sweep_do_not_share_a_folder(tmp_path):
    sweep = [*swept([*SMOKE, f"paths.runs={tmp_path}", "train.ema.half_life_images=10,20"])]
    names = [job_record(parse_request(SMOKE), *both, tmp_path, SlurmConfig()).name for both in sweep]
    assert len({*names}) == 2
    assert names[0].endswith("__train.ema.half_life_images-10")


@pytest.mark.parametrize("preset", ["node_4xa100", "horeka", "one_gpu", "cpu"])
def test_every_preset_is_whole(preset):
    options = slurm_options([f"slurm={preset}"]).slurm
    assert options.tasks_per_node in (1, options.gpus_per_node)


@pytest.mark.parametrize(
    "command, overrides, words",
    [
        (
            "train",
            [*SMOKE, "engine=local"],
            "engine=local is one process, but 1 nodes x 4 tasks are requested",
        ),
        ("sample", [], "command=sample is one process"),
    ],
)
def test_processes_that_would_do_nothing_are_refused(command, overrides, words):
    with pytest.raises(UserError, match=words):
        check_ranks(command, compose_raw(command, *overrides), SlurmConfig(tasks_per_node=4))


def test_the_script_is_shown_without_slurm(tmp_path):
    said = invoke(
        "submit",
        *SMOKE,
        "slurm=one_gpu",
        "slurm.partition=short",
        "seed=1,2",
        f"paths.runs={tmp_path}",
        "--dry-run",
    )
    assert said.status == 0, said.err
    assert said.out.count("#SBATCH --partition=short") == 2
    assert not (tmp_path / "jobs").exists()


def test_a_mistyped_option_gets_the_nearest_names(tmp_path):
    said = invoke("submit", *SMOKE, "train.imagse=10", "slurm=one_gpu", f"paths.runs={tmp_path}")
    assert said.status == 2
    assert "train.images" in said.err


def test_a_mistyped_option_of_slurm_is_refused(tmp_path):
    said = invoke("submit", *SMOKE, "slurm.partitoin=x", f"paths.runs={tmp_path}")
    assert said.status == 2
    assert "partitoin" in said.err
