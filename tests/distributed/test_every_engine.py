"""Every training gives the same curve and weights on every engine: local, ZeRO 0 to 3, on one, two and four ranks."""

import numpy as np
import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, assert_same_tensors, events, loss_curve, newest_state, weights
from PIL import Image

TRAININGS = {  # two of them with dropout, whose masks are the samples' own
    "auxiliary": ["stage=auxiliary", "model.auxiliary.levels.0.dropout=0.2", "stage.beta_warmup_images=64"],
    "flow": ["stage=flow"],
    "latent_sampler": ["stage=latent_sampler"],
    "baseline": ["stage=flow", "prior=gaussian", "model.velocity.levels.1.dropout=0.2"],
}
# learns from the reference's flow, half from latents of its sampler; its model has two passes of the mapping network,
# which stage 3 gathers twice
FLOW_MAP = ["stage=flow", "stage.objective=flow_map", "teacher={root}/local-flow", "stage.teacher_steps=2",
            "sampler={root}/local-latent_sampler"]  # fmt: skip
# its derivatives are the bare model's, its gradients the engine's; stage 3 is refused
MEAN_FLOW = ["stage=flow", "stage.objective=meanflow", "teacher={root}/local-flow"]
DISTILLING = {"flow_map": FLOW_MAP, "meanflow": MEAN_FLOW}
STAGES = (0, 1, 2, 3)
# (ranks, training, ZeRO stage), pairwise: every training at every stage, on two ranks or on four; every training and
# every stage on one, two and four ranks
CASES = [
    *((4 if (number + zero) % 4 == 2 else 2, training, zero)
      for number, training in enumerate(TRAININGS) for zero in STAGES),
    *((1, training, zero) for zero, training in enumerate(TRAININGS)),
    *((2, "flow_map", zero) for zero in STAGES), (2, "meanflow", 2),
]  # fmt: skip
STEPS = [16, 32, 48, 64, 80, 96]  # images seen at each of six steps

# Only the order of float32 sums differs: measured 3e-7 for losses and 2e-5 for weights after six AdamW steps. AdamW
# divides by the size of the gradient, so entries whose gradient is nearly zero may go either way; hence norms of whole
# tensors. A gradient averaged wrongly, a step miscounted or a stale weight is off by more than 1e-2.
CLOSE_LOSSES, CLOSE_WEIGHTS, CLOSE_MOMENTS = 1e-5, 2e-4, 1e-3


def options(root, training, run):
    own = [word.format(root=root) for word in (TRAININGS | DISTILLING)[training]]
    return [
        "experiment=smoke", "engine.device=cpu", f"data.path={root}/shards", f"parent={root}/local-auxiliary",
        f"run={root}/{run}", "train.images=96", "train.log_every_images=16", "train.checkpoint.every_images=48",
        "data.held_out_fraction=0.2", "train.validation.every_images=32", "train.export=best",
        "train.pictures.time_share=1", *own,
    ]  # fmt: skip


def pictures(run):
    """The pixels of every picture by clock and name."""
    paths = sorted((run / "pictures").glob("*/*.png"))
    return {f"{path.parent.name}/{path.stem}": np.asarray(Image.open(path)) for path in paths}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def reference(root):
    """Plain torch, one process: all trainings."""
    for training in TRAININGS | DISTILLING:
        succeed("train", *options(root, training, f"local-{training}"))
    return {training: root / f"local-{training}" for training in TRAININGS | DISTILLING}


@pytest.fixture(scope="module", params=CASES, ids="{0[0]} ranks-{0[1]}-zero {0[2]}".format)
def runs(request, root, reference, forks):
    """A training by DeepSpeed, and the reference; two of the stages accumulate micro-batches."""
    ranks, training, zero = request.param
    name = f"zero{zero}-{ranks}-{training}"
    micro_batch = 16 // ranks // (2 if zero in (1, 3) else 1)
    deepspeed = ["engine=deepspeed", f"engine.zero={zero}", f"engine.micro_batch={micro_batch}"]
    forks.succeed_on_ranks(ranks, "lediflow.train", *options(root, training, name), *deepspeed)
    return root / name, reference[training]


def test_validation_and_pictures_do_not_change_training_by_a_bit(root, reference, forks):
    """Weights that compute are set to the averages and back: at stage 0 swapped, else put together from all ranks.

    Pictures put the averages together on rank 0, which then works alone.
    """
    kinds = [("float32", 0), ("float32", 2), ("bfloat16", 1), ("bfloat16", 3)]
    runs = [
        (f"{precision}-{zero}-{every}", precision, zero, every)
        for precision, zero in kinds
        for every in (0, 16)
    ]
    for name, precision, zero, every in runs:
        forks.succeed_on_ranks(
            2, "lediflow.train", *options(root, "auxiliary", name), "train.images=48", "train.export=last",
            "engine=deepspeed", f"engine.zero={zero}", f"engine.precision={precision}",
            f"train.validation.every_images={every}", f"train.pictures.every_images={every}",
        )  # fmt: skip
    for precision, zero in kinds:
        without, taken = (newest_state(root / f"{precision}-{zero}-{every}") for every in (0, 16))
        assert_same_tensors(taken, without)
        assert sorted(pictures(root / f"{precision}-{zero}-16")) == sorted(
            f"{seen:012d}/{name}" for seen in (16, 32, 48) for name in ("samples", "heldout", "interpolation")
        )
        assert not (root / f"{precision}-{zero}-0/pictures").exists()


class TestTheCurveOfOneProcess:
    def test_at_every_step(self, runs):
        found, expected = map(loss_curve, runs)
        assert list(found) == list(expected) == STEPS
        assert list(found.values()) == pytest.approx(list(expected.values()), rel=CLOSE_LOSSES)

    def test_with_the_held_out_losses_of_both_kinds_of_weights(self, runs):
        found, expected = (events(run, "validation") for run in runs)
        assert [event["best_images_seen"] for event in found] == [
            event["best_images_seen"] for event in expected
        ]
        for key in ("loss", "averaged_loss", "best_loss"):
            left, right = ([event[key] for event in log] for log in (found, expected))
            assert left == pytest.approx(right, rel=CLOSE_LOSSES)

    def test_with_its_gradient_norms(self, runs):
        found, expected = ([event["gradient_norm"] for event in events(run, "train")] for run in runs)
        assert found == pytest.approx(expected, rel=CLOSE_WEIGHTS)

    def test_with_its_pictures_of_the_averaged_weights(self, runs):
        found, expected = map(pictures, runs)
        assert found.keys() == expected.keys() and len(expected) >= 2
        for name, picture in expected.items():
            # a value between two bytes may go either way
            assert np.abs(found[name].astype(int) - picture).max() <= 1

    def test_to_the_same_weights(self, runs):
        found, expected = map(weights, runs)
        assert_near_tensors(found, expected, relative=CLOSE_WEIGHTS)

    def test_the_same_state(self, runs):
        found, expected = map(newest_state, runs)
        assert found.keys() == expected.keys()
        for are_moments, relative in ((True, CLOSE_MOMENTS), (False, CLOSE_WEIGHTS)):
            names = [name for name in expected if name.startswith("exp_avg") == are_moments]
            left, right = ({name: state[name] for name in names} for state in (found, expected))
            assert_near_tensors(left, right, relative=relative)
