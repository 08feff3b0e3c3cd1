"""Processes that read a set together, are killed and continue in another number miss and repeat no sample.

The expected run is the definition: one process, one position after the other.
"""

import json
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from harness.forks import Forked
from harness.processes import wait_for_all

from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import RunOrder
from lediflow.data.synthetic import make_synthetic_images

WINDOW, GLOBAL, SAMPLES = 2, 24, 70  # batches run across the ends of epochs


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """70 pictures in five shards, the last of them short."""
    folder = tmp_path_factory.mktemp("streams")
    make_synthetic_images(folder / "pictures", SAMPLES, size=8)
    options = {"size": 8, "shard_samples": 16, "workers": 1, "format": "png"}
    prepare(PrepareConfig(source=str(folder / "pictures"), output=str(folder / "shards"), **options))
    return folder / "shards"


def start(forks, shards, state, world_size, steps, pause_seconds=0.0, **data) -> list[Forked]:
    """Ranks that continue from the state in a file, if there is one; the first keeps its own there."""
    options = {
        "shards": str(shards), "state": str(state),
        "start": json.loads(state.read_text()) if state.exists() else None, "world_size": world_size, "steps": steps,
        "micro_batch": GLOBAL // world_size // (2 if world_size < 8 else 1), "global_batch": GLOBAL,
        "pause_seconds": pause_seconds, "shuffle_window": WINDOW, **data,
    }  # fmt: skip
    return [
        forks.start("harness.stream_rank", json.dumps(options | {"rank": rank})) for rank in range(world_size)
    ]


def images_of(ranks: list[Forked]) -> list[tuple[int, str, int]]:
    """[position, key, checksum] of every image that any rank got."""
    lines = [line for rank in ranks for line in rank.output().splitlines() if line.endswith("]]")]
    return [tuple(image) for line in lines for image in json.loads(line)]


def steps_done(rank: Forked) -> int:
    """Whole steps of two micro-batches."""
    return rank.output().count("]]\n") // 2


def finished(ranks: list[Forked]) -> list[tuple[int, str, int]]:
    ended = wait_for_all(ranks)
    assert [rank.status for rank in ended] == [0] * len(ranks), "\n".join(rank.output for rank in ended)
    return images_of(ranks)


def expected_keys(shards, last_batch="fill", count=1000) -> list[str]:
    reader = ShardReader.open(shards)
    sizes = reader.index.shard_sizes
    order = RunOrder(sizes, seed=17, window=WINDOW, last_batch=last_batch, global_batch=GLOBAL)
    return reader.keys(order.samples_at(np.arange(count)))


@pytest.fixture(scope="module")
def chain(shards, tmp_path_factory, forks):
    """Three ranks, killed; then eight, then two, then one: [(position, key, checksum)] of each."""
    state = tmp_path_factory.mktemp("state") / "state.json"
    # more loaders than shards
    three = start(forks, shards, state, 3, steps=10_000, pause_seconds=0.05, threads=7)
    three[0].wait_until(lambda: state.exists() and json.loads(state.read_text())["position"] >= 5 * GLOBAL)
    checkpoint = json.loads(state.read_text())
    for rank in three:  # a checkpoint is made when all ranks have done its steps
        rank.wait_until(lambda rank=rank: steps_done(rank) * GLOBAL >= checkpoint["position"])
    for rank in three:
        rank.send(signal.SIGKILL)
    wait_for_all(three)
    state.write_text(json.dumps(checkpoint))
    parts = [[image for image in images_of(three) if image[0] < checkpoint["position"]]]
    for world_size, threads in ((8, 1), (2, 3), (1, 2)):
        parts.append(finished(start(forks, shards, state, world_size, steps=4, threads=threads)))
    return parts


def test_every_position_is_used_once_despite_all_kills(chain):
    positions = Counter(position for part in chain for position, _, _ in part)
    assert sorted(positions) == list(range(len(positions)))
    assert set(positions.values()) == {1}
    assert len(positions) >= (5 + 12) * GLOBAL


def test_every_position_showed_the_sample_of_the_definition(chain, shards):
    keys = expected_keys(shards)
    assert all(keys[position] == key for part in chain for position, key, _ in part)


def test_every_sample_occurs_once_per_epoch_with_its_own_pixels(chain):
    images = sorted(image for part in chain for image in part)
    pixels = {}
    for begin in range(0, len(images) - SAMPLES, SAMPLES):
        epoch = images[begin : begin + SAMPLES]
        assert len({key for _, key, _ in epoch}) == SAMPLES
        for _, key, checksum in epoch:
            assert pixels.setdefault(key, checksum) == checksum


def test_ranks_that_drop_the_last_batch_drop_the_same_and_none_waits(shards, tmp_path, forks):
    images = finished(start(forks, shards, tmp_path / "state", 2, steps=6, last_batch="drop"))
    keys = expected_keys(shards, "drop", 6 * GLOBAL)
    assert sorted((position, key) for position, key, _ in images) == list(enumerate(keys))
    per_epoch = SAMPLES // GLOBAL * GLOBAL
    assert all(
        len(set(keys[begin : begin + per_epoch])) == per_epoch for begin in (0, per_epoch, 2 * per_epoch)
    )
