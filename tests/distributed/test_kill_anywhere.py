"""A run may be killed at any moment: in a step, in a save, in the rename. Its result equals an uninterrupted run's.

Each attempt also checks that it began at the newest whole checkpoint, and that none which the log tells of was lost.
`make soak` kills at every place and at random moments; LEDIFLOW_SOAK_SEED repeats what it did.
"""

import json
import os
import random
from itertools import groupby

import numpy as np
import psutil
import pytest
from harness.commands import succeed
from harness.curves import assert_near_tensors, assert_same_tensors, newest_state, weights
from harness.killed_rank import PLACES
from harness.killing import KILLED, TWO, Kill, Killed, lines, random_kills
from harness.memorising import BEST, OPTIONS, PATIENCE, noise_shards
from harness.processes import torchrun
from safetensors.torch import load_file

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import RunOrder
from lediflow.tracking.event_log import TURNED, read_events, standing_events

IMAGES, BATCH = 320, 16
ENDLESS = 10**6  # the schedule has no decay, so that the length changes no step
CLOSE = 1e-3  # where the number of ranks changes, sums have another order: see test_every_engine, but over 20 steps
OTHERS = [
    (1, ("engine=local",)),
    (4, ("engine=deepspeed", "engine.zero=3")),
    (2, ("engine=deepspeed", "engine.zero=1")),
    (2, ("engine=deepspeed", "engine.zero=0", "engine.micro_batch=4")),
    (1, ("engine=deepspeed", "engine.zero=2")),
]
IN_EXPORT = [place for place in PLACES if "export" in place]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("killed")


def command(root, images):
    return [
        "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={root}/shards",
        f"train.images={images}", "train.checkpoint.every_images=48", "tracking.progress=false",
        f"train.log_every_images={BATCH}", "train.checkpoint.snapshot_every_images=96",
        "model.auxiliary.levels.1.dropout=0.2", "train.pictures.every_images=96", "train.pictures.time_share=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def killable(root, forks):
    """Makes runs that can be killed: (name, images) -> Killed."""

    def named(name, images=IMAGES):
        (root / f"{name}-records").mkdir()
        return Killed(root / name, command(root, images), root / f"{name}-records", forks)

    return named


def left_in_peace(run):
    """The same run on two ranks, to its end at once."""
    assert run.attempt(TWO).statuses == [0, 0], run.attempts
    return run


@pytest.fixture(scope="module")
def undisturbed(killable):
    return left_in_peace(killable("undisturbed"))


def killed(run, kills, engines):
    """Kill after kill; each hits."""
    for kill, engine in zip(kills, engines, strict=True):
        attempt = run.attempt(engine, kill)
        assert KILLED in attempt.statuses, (run.seen, attempt.ranks)
        assert attempt.killed == ({kill.place} if kill.place else set()), run.seen


def brought_to_its_end(run, engine=TWO):
    last = run.attempt(engine)
    assert set(last.statuses) == {0}, (run.seen, last.ranks)


def snapshots(run):
    return {path.name: load_file(path) for path in (run.folder / "averages").iterdir()}


def pictures(run):
    """The pictures of the standing events, by file; each event stands once."""
    log = standing_events(run.folder / "events.jsonl")
    standing = {event["images_seen"]: event["pictures"] for event in log if event["event"] == "pictures"}
    assert len(standing) == sum(event["event"] == "pictures" for event in log)
    files = [about["file"] for found in standing.values() for about in found.values()]
    return {file: (run.folder / file).read_bytes() for file in files}


def assert_equal_runs(run, undisturbed):
    """Bit for bit: weights, moments, averages, the export, what was stored along the way, losses and pictures."""
    assert_same_tensors(newest_state(run.folder), newest_state(undisturbed.folder))
    assert_same_tensors(weights(run.folder), weights(undisturbed.folder))
    found, expected = snapshots(run), snapshots(undisturbed)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_same_tensors(found[name], expected[name])
    assert losses(run) == losses(undisturbed)
    assert pictures(run) == pictures(undisturbed) != {}


def assert_near_runs(run, undisturbed, relative):
    found, expected = newest_state(run.folder), newest_state(undisturbed.folder)
    for are_moments in (False, True):
        names = [name for name in expected if name.startswith("exp_avg") == are_moments]
        left, right = ({name: state[name] for name in names} for state in (found, expected))
        assert_near_tensors(left, right, relative=relative * (5 if are_moments else 1))
    assert_near_tensors(weights(run.folder), weights(undisturbed.folder), relative=relative)


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


def losses(run):
    """The logged training losses by images seen, without the events that a later start replaced."""
    standing = standing_events(run.folder / "events.jsonl")
    return {event["images_seen"]: event["loss"] for event in standing if event["event"] == "train"}


def assert_clean(run, images=IMAGES):
    """Nothing half done is left, and the log tells one story."""
    files = {
        folder: sorted(path.name for path in (run.folder / folder).iterdir())
        for folder in ("checkpoints", "export", "averages")
    }
    assert [name for name in files["checkpoints"] if not name.isdigit()] == []
    assert files["export"] == ["config.json", "model.safetensors"]
    assert [name for name in files["averages"] if name.startswith(".")] == []
    assert json.loads((run.folder / "export/config.json").read_text())["images_seen"] == images
    assert sorted(losses(run)) == list(range(BATCH, images + BATCH, BATCH))


class TestShort:
    KILLS = (
        Kill("between backward and step", rank=1, call=2),  # before anything was saved
        Kill("inside the manifest"),
        Kill("before the rename", call=2, damage="bit flipped"),
        Kill("between a slice and its mark", rank=1, call=2),
        Kill("while an old checkpoint is removed", rank=0),
        Kill("inside the weights of the export"),
    )

    def test_equals_an_uninterrupted_run_bit_for_bit(self, root, killable, undisturbed):
        run = killable("short")
        killed(run, self.KILLS, [TWO] * len(self.KILLS))
        brought_to_its_end(run)
        assert_equal_runs(run, undisturbed)
        assert_every_sample_once(run, root)
        assert_clean(run)

    def test_equals_an_uninterrupted_run_up_to_rounding_on_changing_numbers_of_ranks(
        self, root, killable, undisturbed
    ):
        run = killable("moving")
        kills = (
            Kill("after the rename", call=2),
            Kill("between forward and backward", rank=None, call=5),
        )
        killed(run, kills, [TWO, (4, ("engine=deepspeed", "engine.zero=3"))])
        brought_to_its_end(run, (1, ("engine=local",)))
        assert_near_runs(run, undisturbed, CLOSE)
        assert_every_sample_once(run, root)
        assert_clean(run)


class TestBest:
    """A run that memorises and runs out of patience (harness/memorising.py)."""

    @pytest.fixture(scope="class")
    def memorising(self, root, killable):
        shards = noise_shards(root / "memorising")

        def named(name):
            run = killable(name)
            run.command = [*OPTIONS, f"data.path={shards}", *BEST]
            return run

        return named

    def test_a_killed_run_exports_the_best_weights_of_an_uninterrupted_one_and_warns_once(self, memorising):
        undisturbed, run = left_in_peace(memorising("best-in-peace")), memorising("best")
        turned = self.turned(undisturbed)
        kills = (
            Kill("after a step", rank=1, call=turned[0] // BATCH),  # the loss is about to turn
            Kill("between a slice and its mark", rank=1, call=1),  # saves that it has, and has not said it
            Kill("inside the weights of the export"),
        )
        killed(run, kills, [TWO] * len(kills))
        brought_to_its_end(run)
        names = ("model.safetensors", "config.json")
        left, right = (
            [(one.folder / "export" / name).read_bytes() for name in names] for one in (run, undisturbed)
        )
        assert left == right
        facts = json.loads(left[1])
        assert (facts["ended"], facts["trained_images"] - facts["images_seen"]) == ("patience", PATIENCE)
        assert_same_tensors(newest_state(run.folder), newest_state(undisturbed.folder))
        assert self.turned(run) == turned
        assert len(turned) == 1

    def turned(self, run):
        """Images seen wherever its log says that the loss had turned."""
        log = read_events(run.folder / "events.jsonl")
        return [event["images_seen"] for event in log if event["event"] == TURNED]


def test_under_torchrun_the_other_rank_exits_too_and_the_run_continues(root, killable, undisturbed):
    run = killable("torchrun")
    options = [*command(root, IMAGES), *TWO[1], f"run={run.folder}"]
    deaths = [["between backward and step", 9]]
    settings = json.dumps({"record": f"{run.records}/000", "ranks": [1], "deaths": deaths})
    assert torchrun(2, "harness.killed_rank", settings, *options).status != 0
    records = [lines(run.records / f"000-{rank}.jsonl") for rank in (0, 1)]
    assert [psutil.pid_exists(record[0]["pid"]) for record in records] == [False, False]
    assert records[1][-1] == {"killed": deaths[0][0]}
    assert not (run.folder / "export").exists()
    succeed("train", *command(root, IMAGES), "engine=local", f"run={run.folder}")
    assert_near_runs(run, undisturbed, CLOSE)


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestSoak:
    """Runs without an end that are killed repeatedly, then get an end and are killed in the export."""

    FEW = 64  # images from the last kill to the end

    @pytest.fixture(scope="class")
    def seed(self):
        chosen = int(os.environ.get("LEDIFLOW_SOAK_SEED", random.SystemRandom().randrange(10**6)))
        print(f"\nLEDIFLOW_SOAK_SEED={chosen}")
        return chosen

    def killed_everywhere(self, root, run, chance, engines):
        """Every place and some random moments, in random order; what the run ended at."""
        kills = random_kills([place for place in PLACES if place not in IN_EXPORT], chance)
        killed(run, kills, [chance.choice(engines) for _ in kills])
        images = run.newest_whole() + self.FEW
        run.command = command(root, images)
        killed(run, [Kill(place) for place in IN_EXPORT], [chance.choice(engines) for _ in IN_EXPORT])
        brought_to_its_end(run)
        print(*run.seen, sep="\n")
        assert_every_sample_once(run, root, images)
        assert_clean(run, images)

    def replayed(self, root, run, quiet):
        """The steps that count, repeated in another folder by the same engines without a kill."""
        for engine, steps in groupby(run.steps(), key=lambda step: step["engine"]):
            quiet.command = command(root, max(step["images_seen"] for step in steps))
            brought_to_its_end(quiet, engine)
        return quiet

    def test_kills_anywhere_do_not_change_the_result(self, root, killable, seed):
        run = killable("soak", ENDLESS)
        self.killed_everywhere(root, run, random.Random(seed), [TWO])
        assert_equal_runs(run, left_in_peace(killable("soak-in-peace", run.newest_whole())))

    def test_kills_with_changing_ranks_change_the_result_by_rounding_only(self, root, killable, seed):
        run = killable("moving-soak", ENDLESS)
        self.killed_everywhere(root, run, random.Random(seed + 1), [TWO, *OTHERS])
        log = read_events(run.folder / "events.jsonl")
        assert {event["ranks"] for event in log if event["event"] == "resume"} == {1, 2, 4}
        assert_equal_runs(run, self.replayed(root, run, killable("moving-soak-in-peace")))
