"""Two ranks learn what one learns: real processes, gloo, DeepSpeed, against the local engine."""

import json

import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, events, loss_curve, newest_state, weights
from harness.processes import run_on_ranks, torchrun

pytestmark = pytest.mark.distributed

# Only the order in which gradients are summed differs: 6e-8 for a sum, 2e-5 after a dozen AdamW steps, measured.
# A gradient averaged wrongly, a moment lost or a step miscounted is off by more than 1e-2.
CLOSE = 2e-4
CLOSE_MOMENTS = 1e-3  # Adam's averages of small gradients: 4e-4, measured, in moments of size 1e-4 and 1e-11


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
def as_slurm_tasks(root):
    """Two SLURM tasks, nothing sharded; the first to find that the pictures must be drawn."""
    data = f"data.path={root}/shards-of-two"
    finished = run_on_ranks(2, "lediflow.train", *options(root, "zero0"), data, *on_two(zero=0))
    assert [process.status for process in finished] == [0, 0], "\n".join(
        process.output for process in finished
    )
    return root / "zero0"


@pytest.fixture(scope="module")
def by_torchrun(root, local):
    """Two ranks of torchrun, gradients and optimizer state sharded, micro-batches accumulated."""
    finished = torchrun(2, "lediflow.train", *options(root, "zero2"), *on_two(zero=2), "engine.micro_batch=4")
    assert finished.status == 0, finished.output
    return root / "zero2"


@pytest.mark.parametrize("run", ["as_slurm_tasks", "by_torchrun"])
class TestTwoRanks:
    def test_have_the_loss_curve_of_one(self, run, local, request):
        found, expected = loss_curve(request.getfixturevalue(run)), loss_curve(local)
        assert list(found) == list(expected) == [32, 64, 96, 128, 160, 192]
        assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-5)

    def test_see_the_gradient_norm_of_one(self, run, local, request):
        norms = [
            [event["gradient_norm"] for event in events(folder, "train")]
            for folder in (request.getfixturevalue(run), local)
        ]
        assert norms[0] == pytest.approx(norms[1], rel=CLOSE)

    def test_export_the_weights_of_one(self, run, local, request):
        assert_near_tensors(weights(request.getfixturevalue(run)), weights(local), relative=CLOSE)

    def test_save_the_whole_state_of_one(self, run, local, request):
        found, expected = newest_state(request.getfixturevalue(run)), newest_state(local)
        assert found.keys() == expected.keys()
        for are_moments, relative in ((True, CLOSE_MOMENTS), (False, CLOSE)):
            names = [name for name in expected if name.startswith("exp_avg") == are_moments]
            left, right = ({name: state[name] for name in names} for state in (found, expected))
            assert_near_tensors(left, right, relative=relative)

    def test_write_one_log(self, run, local, request):
        found = [event["images_seen"] for event in events(request.getfixturevalue(run), "checkpoint")]
        assert found == [96, 192]


def test_a_run_started_on_one_rank_continues_on_two(root, local):
    succeed("train", *options(root, "moved"), "train.images=96")
    finished = torchrun(2, "lediflow.train", *options(root, "moved"), *on_two(zero=1))
    assert finished.status == 0, finished.output
    assert [(event["images_seen"], event["ranks"]) for event in events(root / "moved", "resume")] == [(96, 2)]
    assert_near_tensors(weights(root / "moved"), weights(local), relative=CLOSE)
    assert json.loads((root / "moved" / "export" / "config.json").read_text())["images_seen"] == 192
