"""SLURM tasks learn what one process learns, and a run moves between engines; test_every_engine has the rest."""

import json

import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, events, loss_curve, weights

# Only the order in which gradients are summed differs: 6e-8 for a sum, 2e-5 after a dozen AdamW steps, measured.
# A gradient averaged wrongly, a moment lost or a step miscounted is off by more than 1e-2.
CLOSE = 2e-4


def options(root, run):
    return (
        "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={root}/shards", f"run={root}/{run}",
    )  # fmt: skip


def on_two(zero):
    return ("engine=deepspeed", f"engine.zero={zero}")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def local(root):
    """The reference: one process, plain torch."""
    succeed("train", *options(root, "local"))
    return root / "local"


@pytest.fixture(scope="module")
def as_slurm_tasks(root, forks):
    """Two SLURM tasks, nothing sharded; the first to find that the pictures must be drawn."""
    data = f"data.path={root}/shards-of-two"
    forks.succeed_on_ranks(2, "lediflow.train", *options(root, "zero0"), data, *on_two(zero=0))
    return root / "zero0"


def test_slurm_tasks_have_the_curve_and_the_weights_of_one_process(as_slurm_tasks, local):
    found, expected = loss_curve(as_slurm_tasks), loss_curve(local)
    assert list(found) == list(expected) == [32, 64, 96, 128, 160, 192]
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-5)
    assert_near_tensors(weights(as_slurm_tasks), weights(local), relative=CLOSE)


def test_several_ranks_write_one_log(as_slurm_tasks):
    assert [event["images_seen"] for event in events(as_slurm_tasks, "checkpoint")] == [96, 192]


LOCAL = (1, ("engine=local",))
MOVES = {
    "one process, then two ranks": (LOCAL, (2, on_two(zero=1))),
    "two ranks with gradients sharded, then one with weights sharded": (
        (2, on_two(zero=2)),
        (1, on_two(zero=3)),
    ),
    "two ranks with weights sharded, then one process": ((2, on_two(zero=3)), LOCAL),
    "two ranks with the optimizer offloaded, then four that replicate": (
        (2, (*on_two(zero=2), "engine.offload=cpu")),
        (4, on_two(zero=0)),
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_run_moves_to_other_ranks_and_stages_in_the_middle(root, local, move, forks):
    run, (before, after) = move.replace(" ", "-").replace(",", ""), MOVES[move]
    for (ranks, engine), images in ((before, 96), (after, 192)):
        forks.succeed_on_ranks(
            ranks, "lediflow.train", *options(root, run), *engine, f"train.images={images}"
        )
    (resumed,) = events(root / run, "resume")
    assert (resumed["images_seen"], resumed["ranks"]) == (96, after[0])
    assert_near_tensors(weights(root / run), weights(local), relative=CLOSE)
    assert json.loads((root / run / "export" / "config.json").read_text())["images_seen"] == 192
