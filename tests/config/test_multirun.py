"""`-m`: one command, several runs; each job is the same training as on its own."""

import sys

import pytest
from harness.commands import succeed
from harness.curves import assert_same_tensors, weights
from harness.processes import run

OPTIONS = (
    "experiment=smoke",
    "stage=auxiliary",
    "train.images=32",
    "synthetic_images=16",
    "engine.device=cpu",
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One run of each seed, by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in (0, 1):
        succeed("train", *OPTIONS, f"paths.runs={folder}", f"data.path={folder}/shards{seed}", f"seed={seed}")
    return folder


def assert_both_seeds_are_trained(folder, alone):
    for seed in (0, 1):
        (run,) = folder.glob(f"smoke/auxiliary-learned-seed{seed}*")
        (reference,) = alone.glob(f"smoke/auxiliary-learned-seed{seed}*")
        assert_same_tensors(weights(run), weights(reference))


def sweep(folder):
    """Each seed draws pictures of its own, so each gets a folder of its own."""
    return ("-m", *OPTIONS, f"paths.runs={folder}", f"data.path={folder}/shards${{seed}}", "seed=0,1")


@pytest.mark.slow
def test_two_seeds_of_one_command_are_two_runs(tmp_path, alone):
    succeed("train", *sweep(tmp_path))
    assert_both_seeds_are_trained(tmp_path, alone)


@pytest.mark.slow
def test_jobs_that_differ_in_any_option_do_not_share_a_folder(tmp_path):
    folder = (f"paths.runs={tmp_path}", f"data.path={tmp_path}/shards")
    succeed("train", "-m", *OPTIONS, *folder, "train.ema.half_life_images=10,1000")
    assert len(list(tmp_path.glob("smoke/*/export/model.safetensors"))) == 2


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="submitit's local jobs need Linux")
def test_submitit_runs_the_same_jobs_as_processes_of_their_own(tmp_path, alone):
    finished = run("lediflow.train", *sweep(tmp_path), "hydra/launcher=submitit_local")
    assert finished.status == 0, finished.output
    assert_both_seeds_are_trained(tmp_path, alone)
