"""A run that is asked to stop saves, says how to continue, and loses nothing: real processes, real signals."""

import re
import shlex
import signal

import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, assert_same_tensors, events, newest_state, weights
from harness.processes import start, wait_for_all

STOPPED = 75
ENDLESS = "train.images=1000000"  # the schedule has no decay, so that the length changes no step
FEW = 64  # images after the stop


def options(root, run):
    return (
        "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={root}/shards", f"run={root}/{run}",
    )  # fmt: skip


def is_training(folder):
    return lambda: bool(events(folder, "train"))


def until_training(ranks, folder):
    """Nothing is left behind if it does not come to that."""
    try:
        ranks[0].wait_until(is_training(folder))
    except AssertionError:
        for rank in ranks:
            rank.kill()
        raise


def images_saved(folder):
    return events(folder, "checkpoint")[-1]["images_seen"]


@pytest.fixture(params=["interpreter", "fork"])
def starting(request):
    """Starts a command, as a shell does or as a fork (harness/forks.py)."""
    return start if request.param == "interpreter" else request.getfixturevalue("forks").start


@pytest.mark.parametrize(
    ("starting", "number"), [("interpreter", signal.SIGINT), ("fork", signal.SIGTERM)], indirect=["starting"]
)
def test_a_signalled_run_saves_and_its_continuation_equals_an_undisturbed_run_bit_for_bit(
    tmp_path, starting, number
):
    process = starting("lediflow.train", *options(tmp_path, "stopped"), ENDLESS)
    process.wait_until(is_training(tmp_path / "stopped"))
    process.send(number)
    finished = process.wait()
    assert finished.status == STOPPED, finished.output
    assert "Traceback" not in finished.output
    assert not (tmp_path / "stopped" / "export").exists()

    typed_again = shlex.split(re.search(r"To continue: python -m (.*)", finished.output)[1])
    assert typed_again == ["lediflow.train", *options(tmp_path, "stopped"), ENDLESS]
    images = f"train.images={images_saved(tmp_path / 'stopped') + FEW}"
    succeed("train", *typed_again[1:], images)
    succeed("train", *options(tmp_path, "undisturbed"), images)
    assert_same_tensors(weights(tmp_path / "stopped"), weights(tmp_path / "undisturbed"))
    assert_same_tensors(newest_state(tmp_path / "stopped"), newest_state(tmp_path / "undisturbed"))


def test_a_signal_to_one_rank_stops_both_and_one_rank_continues_the_run(tmp_path, forks):
    """SLURM may warn one task only: all save together, and the run continues wherever there is room."""
    folder = tmp_path / "stopped"
    first, second = forks.start_on_ranks(
        2, "lediflow.train", *options(tmp_path, "stopped"), ENDLESS, "engine=deepspeed", "engine.zero=2"
    )
    until_training([first, second], folder)
    second.send(signal.SIGUSR2)
    finished = wait_for_all([first, second])
    assert [process.status for process in finished] == [STOPPED, STOPPED], finished[0].output
    assert "To continue" in finished[0].output
    assert "To continue" not in finished[1].output

    images = f"train.images={images_saved(folder) + FEW}"
    succeed("train", *options(tmp_path, "stopped"), images)
    succeed("train", *options(tmp_path, "undisturbed"), images)
    # only the order of sums differs, as in test_ranks_agree, for as many steps as the ranks made before the signal
    assert_near_tensors(weights(folder), weights(tmp_path / "undisturbed"), relative=1e-3)


def test_a_stop_file_stops_both_ranks_and_is_removed_for_the_next_start(tmp_path, forks):
    folder = tmp_path / "stopped"
    ranks = forks.start_on_ranks(
        2, "lediflow.train", *options(tmp_path, "stopped"), ENDLESS, "engine=deepspeed", "engine.zero=3"
    )
    until_training(ranks, folder)
    (folder / "stop").touch()
    finished = wait_for_all(ranks)
    assert [process.status for process in finished] == [80, 80], finished[0].output
    assert "the stop file asked for a stop; the state is saved" in finished[0].output
    assert not (folder / "stop").exists()
    succeed("train", *options(tmp_path, "stopped"), f"train.images={images_saved(folder) + FEW}")


def test_a_run_that_nears_its_wall_time_saves_and_says_so(tmp_path, forks):
    finished = forks.start(
        "lediflow.train", *options(tmp_path, "stopped"), ENDLESS, "stop.wall_minutes=0.02"
    ).wait()
    assert finished.status == 79, finished.output
    assert "the wall time is near; the state is saved" in finished.output
    saved = images_saved(tmp_path / "stopped")
    succeed("train", *options(tmp_path, "stopped"), f"train.images={saved + FEW}")
    assert events(tmp_path / "stopped", "resume")[-1]["images_seen"] == saved


def test_a_signal_that_comes_before_the_first_step_is_not_lost(tmp_path, forks):
    """While the model is being built, say: the run saves after its first step and ends with the same status."""
    folder = tmp_path / "stopped"
    process = forks.start("lediflow.train", *options(tmp_path, "stopped"), ENDLESS)
    process.wait_until(folder.is_dir)
    process.send(signal.SIGTERM)
    finished = process.wait()
    assert finished.status == STOPPED, finished.output
    succeed("train", *options(tmp_path, "stopped"), f"train.images={images_saved(folder) + FEW}")


def test_several_ranks_without_deepspeed_are_refused_in_a_sentence(tmp_path, forks):
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    finished = forks.start("lediflow.train", *options(tmp_path, "run"), env=environment).wait()
    assert finished.status == 2
    assert "use engine=deepspeed" in finished.output
    assert "Traceback" not in finished.output
