"""Corrupt samples are reported, counted and replaced in the same way on every rank, until there are too many."""

import logging
import shutil

import numpy as np
import pytest
import torch

from lediflow.data.shards.reader import CorruptSampleError, ShardReader
from lediflow.data.storage import ReadingConfig
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream
from lediflow.errors import UserError

TENTH = 0.1  # of fifty samples: five
CHECKED = ReadingConfig(checksums=True)


def damage(folder, index, sample, *, at=-60):
    """Overwrite some of a sample's bytes; the lengths of all files stay."""
    shard = index.shards[int(index.shard_of(np.array([sample]))[0])]
    row = index.table[sample]
    with (folder / shard.name).open("r+b") as file:
        file.seek(int(row["offset"]) + (int(row["length"]) + at if at < 0 else at))
        file.write(b"\x00\xff" * 10)


@pytest.fixture
def damaged(shards, tmp_path):
    """The fifty pictures, of which 7, 8 and 49 are damaged: two neighbours, and the last."""
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    index = ShardReader.open(folder).index
    for sample in (7, 8, 49):
        damage(folder, index, sample)
    return folder


def seen(folder, *, world_size=1, steps=25, start=0, reading=None, share=TENTH, threads=2):
    """{position: (key, image)} of all ranks."""
    found = {}
    for rank in range(world_size):
        config = DataConfig(max_corrupt_share=share, threads=threads, reading=reading or ReadingConfig())
        stream = SampleStream(
            ShardReader.open(folder, config.reading), config, seed=5, rank=rank, world_size=world_size,
            micro_batch=2, global_batch=12, position=start,
        )  # fmt: skip
        for _ in range(steps * stream.accumulation):
            batch = stream.next_batch()
            found |= {
                place: (key, image)
                for place, key, image in zip(batch.ids.tolist(), batch.keys, batch.images, strict=True)
            }
        stream.close()
    return found


@pytest.mark.parametrize("reading", [None, CHECKED])
def test_a_corrupt_sample_is_replaced_by_the_next_and_nothing_else_changes(shards, reader, damaged, reading):
    keys = reader.keys(np.arange(50))
    replaced = {keys[7]: keys[9], keys[8]: keys[9], keys[49]: keys[0]}
    whole, mended = seen(shards), seen(damaged, reading=reading)
    assert whole.keys() == mended.keys()
    signals = reader.signals(np.arange(50)).mean
    for place, (key, _) in whole.items():
        expected = replaced.get(key, key)
        assert mended[place][0] == expected
        assert torch.equal(mended[place][1], signals[keys.index(expected)])


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_rank_replaces_corrupt_samples_in_the_same_way(damaged, world_size):
    alone, together = seen(damaged), seen(damaged, world_size=world_size)
    assert {place: key for place, (key, _) in alone.items()} == {
        place: key for place, (key, _) in together.items()
    }


def test_a_resumed_run_replaces_corrupt_samples_like_an_uninterrupted_one(damaged):
    alone = seen(damaged)
    resumed = seen(damaged, steps=10) | seen(damaged, steps=15, start=120, threads=4)
    assert {p: key for p, (key, _) in alone.items()} == {p: key for p, (key, _) in resumed.items()}


def test_each_is_named_and_counted_once(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        seen(damaged, threads=1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert all("is corrupt: it cannot be decoded" in line and "images-00000" in line for line in said)
    assert "(3 of 50 samples so far, up to 5 are allowed)" in said[-1]


def test_more_than_the_allowed_share_ends_the_run_with_their_names(damaged):
    with pytest.raises(
        UserError, match=r"3 of 50 samples are corrupt, data.max_corrupt_share allows 2 \(sample 0"
    ):
        seen(damaged, share=0.05)


def test_none_allowed_means_none(damaged):
    with pytest.raises(UserError, match=r"1 of 50 samples are corrupt, .* allows 0"):
        seen(damaged, share=0.0)


def test_a_set_of_corrupt_samples_only_always_ends_the_run(shards, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    for path in folder.glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="50 of 50 samples are corrupt"):
        seen(folder, share=1.0, threads=1)


def test_damage_that_still_decodes_is_found_by_checksums_on_demand(shards, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    index = ShardReader.open(folder).index
    with (folder / "images-000000.tar").open("r+b") as file:  # the last byte of the PNG's end mark
        file.seek(int(index.table[3]["offset"] + index.table[3]["length"]) - 1)
        file.write(b"\x00")
    ShardReader.open(folder).stored(np.array([3]))
    with pytest.raises(CorruptSampleError, match="do not have the checksum of the index"):
        ShardReader.open(folder, CHECKED).stored(np.array([3]))


def test_a_picture_of_another_size_is_corrupt(pictures, tmp_path, shards):
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    index = ShardReader.open(folder).index
    document = (
        (folder / "index.json").read_text().replace('"shape": [\n  3,\n  16,\n  16', '"shape": [3, 32, 32')
    )
    (folder / "index.json").write_text(document)
    with pytest.raises(CorruptSampleError, match="it is 16x16 where the set is 32x32"):
        ShardReader.open(folder).stored(np.array([0]))
    assert len(index) == 50
