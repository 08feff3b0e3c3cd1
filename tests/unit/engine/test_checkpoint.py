"""Checkpoints are whole or absent, and the newest whole one is found."""

import logging

import pytest
import torch

from lediflow.engine.checkpoint import MANIFEST, PROGRESS, STATE, Checkpoint, CheckpointFolder, find_fault
from lediflow.engine.protocol import EngineState


def checkpoint(value):
    return Checkpoint(
        EngineState({"weight/a": torch.full((64,), float(value))}, steps=value), {"images_seen": value}
    )


@pytest.fixture
def folder(tmp_path):
    """Checkpoints at 100, 200 and 300 images."""
    saved = CheckpointFolder(tmp_path / "checkpoints", keep_last=3)
    for images in (100, 200, 300):
        saved.save(images, checkpoint(images))
    return saved


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated state": lambda path: truncate(path / STATE),
    "flipped bit in the state": lambda path: flip_a_bit(path / STATE),
    "flipped bit in the progress": lambda path: flip_a_bit(path / PROGRESS),
    "no state": lambda path: (path / STATE).unlink(),
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "torn manifest": lambda path: truncate(path / MANIFEST),
    "manifest of nothing": lambda path: (path / MANIFEST).write_text("{}"),
}


def test_what_was_saved_comes_back(folder):
    found = folder.newest()
    assert found.engine.steps == 300
    assert found.progress["images_seen"] == 300
    assert torch.equal(found.engine.tensors["weight/a"], torch.full((64,), 300.0))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, damage, caplog):
    newest = folder.paths()[-1]
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert folder.newest().progress["images_seen"] == 200
    assert str(newest) in caplog.text
    assert find_fault(newest) is not None


def test_all_damaged_is_none_at_all_and_every_one_is_named(folder, caplog):
    for path in folder.paths():
        truncate(path / STATE)
    assert folder.newest() is None
    assert all(str(path) in caplog.text for path in folder.paths())


def test_a_save_that_was_killed_half_way_does_not_count(folder):
    partial = folder.folder / f".{400:012d}.partial"
    partial.mkdir()
    (partial / STATE).write_bytes(b"half")
    assert folder.newest().progress["images_seen"] == 300
    folder.save(400, checkpoint(400))  # the next attempt starts afresh
    assert folder.newest().progress["images_seen"] == 400
    assert not partial.exists()


def test_saving_the_same_moment_again_replaces_it(folder):
    folder.save(300, checkpoint(301))
    assert folder.newest().engine.steps == 301


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [300]), (2, [200, 300]), (0, [300])])
def test_older_checkpoints_go_but_never_the_last(tmp_path, keep_last, kept):
    folder = CheckpointFolder(tmp_path, keep_last=keep_last)
    for images in (100, 200, 300):
        folder.save(images, checkpoint(images))
    assert [int(path.name) for path in folder.paths()] == kept


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert CheckpointFolder(tmp_path / "nothing").newest() is None


def test_names_sort_by_images_seen(tmp_path):
    folder = CheckpointFolder(tmp_path, keep_last=9)
    for images in (1_048_576, 20_000_000, 96):
        folder.save(images, checkpoint(images))
    assert folder.newest().progress["images_seen"] == 20_000_000
