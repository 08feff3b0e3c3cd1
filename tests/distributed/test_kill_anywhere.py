"""A run may be killed at any moment: in a step, in a save, in the rename. It ends as if nothing had been.

`make soak` kills more often, at random; LEDIFLOW_SOAK_SEED repeats what it did.
"""

import os
import random

import numpy as np
import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, assert_same_tensors, events, newest_state, weights
from harness.killing import TWO, Kill, Killed, random_kills
from harness.processes import torchrun

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import RunOrder
from lediflow.tracking.jsonl import standing_events

pytestmark = pytest.mark.distributed

IMAGES, BATCH, SAVED_EVERY = 320, 16, 48
CLOSE = 1e-3  # for runs whose number of ranks changes: sums in another order, see test_every_engine, over 20 steps
OTHERS = [
    (1, ("engine=local",)),
    (4, ("engine=deepspeed", "engine.zero=3")),
    (2, ("engine=deepspeed", "engine.zero=1")),
    (1, ("engine=deepspeed", "engine.zero=2")),
]


def command(root, images=IMAGES):
    return [
        "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={root}/shards",
        f"train.images={images}", f"train.checkpoint.every_images={SAVED_EVERY}", "tracking.progress=false",
        f"train.log_every_images={BATCH}", "train.checkpoint.snapshot_every_images=96",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def undisturbed(root):
    return left_in_peace(killable(root, "undisturbed"))


def left_in_peace(run):
    """The same run on two ranks, to its end at once."""
    finished = run.attempt(TWO, None)
    assert [process.status for process in finished] == [0, 0], finished[0].output
    return run


def killable(root, name, images=IMAGES):
    (root / f"{name}-records").mkdir()
    return Killed(root / name, command(root, images), root / f"{name}-records")


def brought_to_its_end(run, kills, engines):
    """Kill after kill, then once more without; how many of the kills hit."""
    hits = 0
    for kill, engine in zip(kills, engines, strict=True):
        finished = run.attempt(engine, kill)
        statuses = [process.status for process in finished]
        assert -9 in statuses or statuses == [0] * len(statuses), (run.seen, finished)
        hits += -9 in statuses
    last = run.attempt(engines[-1], None)
    assert {process.status for process in last} == {0}, (run.seen, last)
    return hits


def assert_every_sample_once(run, root, images=IMAGES):
    """The standing steps of all attempts use every position once, and the samples that the order has there."""
    steps = run.steps()
    positions = [number for step in steps for number in step["ids"]]
    assert sorted(positions) == list(range(images)), run.seen
    reader = ShardReader.open(root / "shards")
    sizes = np.diff(np.asarray(reader.index.shard_ends), prepend=0)
    order = RunOrder(sizes, seed=0, window=8)
    expected = reader.keys(order.samples_at(np.array(positions)))
    assert [key for step in steps for key in step["keys"]] == list(expected)


def assert_clean(run, images=IMAGES):
    """Nothing half done is left, and the log tells one story."""
    left = [path.name for path in (run.folder / "checkpoints").iterdir() if not path.name.isdigit()]
    assert left == []
    standing = [event for event in standing_events(run.folder / "events.jsonl") if event["event"] == "train"]
    newest = {event["images_seen"]: event["loss"] for event in standing}
    assert sorted(newest) == list(range(BATCH, images + BATCH, BATCH))


def losses(run):
    return {event["images_seen"]: event["loss"] for event in events(run.folder, "train")}


class TestShort:
    KILLS = (
        Kill(rank=1, place="between backward and step", call=2),  # before anything was saved
        Kill(rank=0, place="before the rename", call=1),
        Kill(rank=1, place="inside a slice", call=2),
        Kill(rank=0, place="while an old checkpoint is removed", call=1),
        Kill(rank=0, place="inside the export", call=1),
    )

    def test_ends_bit_for_bit_as_if_nothing_had_been(self, root, undisturbed):
        run = killable(root, "short")
        hits = brought_to_its_end(run, self.KILLS, [TWO] * len(self.KILLS))
        assert hits == len(self.KILLS), run.seen
        assert_same_tensors(newest_state(run.folder), newest_state(undisturbed.folder))
        assert_same_tensors(weights(run.folder), weights(undisturbed.folder))
        assert losses(run) == losses(undisturbed)
        assert_every_sample_once(run, root)
        assert_clean(run)

    def test_ends_as_closely_as_sums_allow_on_changing_numbers_of_ranks(self, root, undisturbed):
        run = killable(root, "moving")
        kills = (
            Kill(rank=0, place="after the rename", call=2),
            Kill(rank=3, place="between forward and backward", call=3),
            Kill(rank=0, place="after a step", call=5),
        )
        engines = [TWO, (4, ("engine=deepspeed", "engine.zero=3")), (1, ("engine=local",))]
        assert brought_to_its_end(run, kills, engines) == len(kills), run.seen
        assert_near_tensors(weights(run.folder), weights(undisturbed.folder), relative=CLOSE)
        assert_every_sample_once(run, root)
        assert_clean(run)


def test_torchrun_ends_the_others_when_one_rank_dies_and_the_same_command_goes_on(root, undisturbed):
    run = killable(root, "torchrun")
    options = [*command(root), "engine=deepspeed", "engine.zero=2", f"run={run.folder}"]
    settings = '{"record": "%s/001", "kill": [1, "between backward and step", 9]}' % run.records  # noqa: UP031
    assert torchrun(2, "tests.harness.killed_rank", settings, *options).status != 0
    assert not (run.folder / "export").exists()
    succeed("train", *command(root), "engine=local", f"run={run.folder}")
    assert_near_tensors(weights(run.folder), weights(undisturbed.folder), relative=CLOSE)


@pytest.mark.soak
class TestSoak:
    KILLS, AT_LEAST, IMAGES = 26, 20, 9_600  # the run must not end before it was killed often enough

    @pytest.fixture(scope="class")
    def undisturbed(self, root):
        return left_in_peace(killable(root, "undisturbed-soak", self.IMAGES))

    @pytest.fixture(scope="class")
    def seed(self):
        chosen = int(os.environ.get("LEDIFLOW_SOAK_SEED", random.SystemRandom().randrange(10**6)))
        print(f"\nLEDIFLOW_SOAK_SEED={chosen}")
        return chosen

    def killed_often(self, root, name, kills, engines):
        run = killable(root, name, self.IMAGES)
        hits = brought_to_its_end(run, kills, engines)
        print(*run.seen, f"{hits} of {len(kills)} kills hit", sep="\n")
        assert hits >= self.AT_LEAST
        assert_every_sample_once(run, root, self.IMAGES)
        assert_clean(run, self.IMAGES)
        return run

    def test_random_kills_leave_no_trace(self, root, undisturbed, seed):
        kills = random_kills(seed, self.KILLS)
        run = self.killed_often(root, "soak", kills, [TWO] * len(kills))
        assert_same_tensors(newest_state(run.folder), newest_state(undisturbed.folder))
        assert_same_tensors(weights(run.folder), weights(undisturbed.folder))

    def test_random_kills_on_changing_ranks_leave_a_rounding_error(self, root, undisturbed, seed):
        chance = random.Random(seed)
        engines = [chance.choice([TWO, *OTHERS]) for _ in range(self.KILLS)]
        kills = random_kills(seed + 1, self.KILLS)
        run = self.killed_often(root, "moving-soak", kills, engines)
        assert_near_tensors(weights(run.folder), weights(undisturbed.folder), relative=20 * CLOSE)
