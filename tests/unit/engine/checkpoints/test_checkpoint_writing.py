"""Writing together: ranks here are threads with a writer each; real processes are in tests/distributed."""

import errno
import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from harness.saves import assert_holds, names_in, part, reason, whole, writers, written
from safetensors.torch import load_file

from lediflow.engine.checkpoints import CheckpointFolder, CheckpointWriter, Failed, Saved, slices
from lediflow.engine.checkpoints import writing as writing_module
from lediflow.engine.checkpoints.averages import Snapshots
from lediflow.engine.ranks import Ranks

FULL_DEVICE = Path("/dev/full")  # takes nothing: every write ends as on a disk without room
PROGRESS = {"images_seen": 96}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints")


def fails(error):
    def ready():
        raise error

    return ready


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


class Gate:
    """Copies that arrive when the test permits it; `reached` is set once a thread waits for them."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.opened.wait(60)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_slices_of_all_ranks_are_the_whole_state(folder, ranks):
    checkpoint = written(folder, 96, whole(7), ranks)
    assert_holds(folder.newest(), whole(7))
    assert checkpoint.progress == {"images_seen": 96, "optimizer_steps": 3}
    assert sum(name.startswith("slice-") for name in names_in(checkpoint.path)) == ranks


def test_the_averaged_weights_are_in_the_checkpoint_under_the_models_names(folder):
    state = whole(7)
    found = load_file(written(folder, 96, state, ranks=2).model)
    expected = {"a": state["ema/a"], "b.c": state["ema/b.c"], "f": state["buffer/f"]}
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_the_manifest_has_the_sum_of_every_file(folder):
    path = written(folder, 96, ranks=2).path
    sums = json.loads((path / "manifest.json").read_text())["sha256"]
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    assert found == sums


def test_a_checkpoint_appears_only_when_everything_is_written(folder):
    first, second = writers(folder, 2)
    gate = Gate()
    first.begin(96, part(whole(7), 0, 2), PROGRESS)
    second.begin(96, replace(part(whole(7), 1, 2), ready=gate), PROGRESS)
    assert first.wait_slice() is None
    assert gate.reached.wait(60)
    assert folder.paths() == []
    assert first.is_busy
    assert first.poll() is None
    gate.opened.set()
    assert isinstance(first.wait_commit(), Saved)
    assert len(folder.paths()) == 1


def test_training_continues_while_copies_are_running(folder):
    (writer,) = writers(folder, 1)
    gate = Gate()
    writer.begin(96, replace(part(whole(7)), ready=gate), PROGRESS)
    assert gate.reached.wait(60)  # `begin` has returned, and the thread waits
    gate.opened.set()
    writer.wait_commit()


def test_the_end_of_a_save_is_reported_once(folder):
    (writer,) = writers(folder, 1)
    assert writer.poll() is None
    writer.begin(96, part(whole(7)), PROGRESS)
    writer.thread.join()
    said = writer.poll()
    assert isinstance(said, Saved)
    assert said.path == folder.path_at(96)
    assert writer.poll() is None


def test_a_second_save_does_not_begin_while_one_is_under_way(folder):
    (writer,) = writers(folder, 1)
    gate = Gate()
    writer.begin(96, replace(part(whole(7)), ready=gate), PROGRESS)
    with pytest.raises(RuntimeError, match="still being written"):
        writer.begin(144, part(whole(7)), PROGRESS)
    gate.opened.set()
    writer.wait_commit()


def test_after_its_slice_another_rank_may_begin_the_next_save_at_once(folder):
    _, second = writers(folder, 2)
    for number in range(20):
        second.begin(96 + number, part(whole(7), 1, 2), PROGRESS)
        assert second.wait_slice() is None


def test_tensors_are_read_only_when_their_copies_have_arrived(folder):
    state, tensors = part(whole(7)), whole(8)

    def arrive():
        for key, piece in state.tensors.items():
            piece.copy_(tensors[key].flatten())

    (writer,) = writers(folder, 1)
    writer.begin(96, replace(state, ready=arrive), PROGRESS)
    assert isinstance(writer.wait_commit(), Saved)
    assert_holds(folder.newest(), whole(8))


SLICE = slices.slice_name(0, 1)
EVERY_FILE = (SLICE, f".{SLICE}.mark", "model.safetensors", "progress.json", "manifest.json")


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_full_disk_at_any_file_keeps_the_previous_checkpoint_as_newest(folder, name):
    written(folder, 48)
    (writer,) = writers(folder, 1)
    partial = folder.folder / ".000000000096.one.1.partial"
    partial.mkdir()
    (partial / name).symlink_to(FULL_DEVICE)
    writer.begin(96, part(whole(96)), PROGRESS)
    assert reason(writer.wait_commit()).startswith("No space left on device")
    assert names_in(folder.folder) == ["000000000048"]
    assert_holds(folder.newest(), whole(48))
    writer.begin(96, part(whole(96)), PROGRESS)
    assert isinstance(writer.wait_commit(), Saved)
    assert names_in(folder.folder) == ["000000000048", "000000000096"]
    assert_holds(folder.newest(), whole(96))


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="this system has no device that is always full")
def test_averages_that_cannot_be_stored_fail_their_save(folder, tmp_path):
    snapshots = Snapshots(tmp_path / "averages", every_images=1)
    written(folder, 48, snapshots=snapshots)
    (tmp_path / "averages" / ".000000000096.safetensors").symlink_to(FULL_DEVICE)
    writer = CheckpointWriter(folder, Ranks(), "one", snapshots)
    writer.begin(96, part(whole(96)), PROGRESS)
    assert reason(writer.wait_commit()) == "No space left on device"
    assert names_in(folder.folder) == ["000000000048"]
    assert names_in(tmp_path / "averages") == ["000000000048.safetensors"]
    writer.begin(96, part(whole(96)), PROGRESS)
    assert isinstance(writer.wait_commit(), Saved)
    assert names_in(tmp_path / "averages") == ["000000000048.safetensors", "000000000096.safetensors"]


def test_an_abandoned_save_keeps_the_previous_checkpoint_and_the_next_save_works(folder):
    written(folder, 48, ranks=2)
    first, second = writers(folder, 2)
    first.begin(96, part(whole(96), 0, 2), PROGRESS)
    assert first.wait_slice() is None
    first.abandon()
    assert f"{slices.slice_name(1, 2)} is not there" in reason(first.poll())
    assert names_in(folder.folder) == ["000000000048"]
    assert_holds(folder.newest(), whole(48))
    second.number = 1  # its own try failed before it wrote anything
    first.begin(144, part(whole(144), 0, 2), PROGRESS)
    first.thread.join(0.2)
    assert first.is_busy  # this one is not given up
    second.begin(144, part(whole(144), 1, 2), PROGRESS)
    assert isinstance(first.wait_commit(), Saved)
    assert_holds(folder.newest(), whole(144))


def test_a_damaged_checkpoint_of_the_same_image_count_is_replaced(folder):
    path = written(folder, 96, whole(1), ranks=2).path
    (path / slices.slice_name(1, 2)).unlink()
    written(folder, 96, whole(2))
    assert_holds(folder.newest(), whole(2))
    assert names_in(folder.folder) == ["000000000096"]


@pytest.mark.parametrize("place", ["fsync", "write_averaged", "write_flushed"])
def test_a_full_disk_loses_only_the_save(folder, monkeypatch, place):
    written(folder, 48)
    with monkeypatch.context() as patch:
        patch.setattr(slices.os if place == "fsync" else writing_module, place, full_disk)
        (writer,) = writers(folder, 1)
        writer.begin(96, part(whole(96)), PROGRESS)
        assert reason(writer.wait_commit()) == "No space left on device"
    assert names_in(folder.folder) == ["000000000048"]
    assert_holds(folder.newest(), whole(48))
    written(folder, 96)
    assert_holds(folder.newest(), whole(96))


def test_a_failed_write_of_one_rank_is_reported_and_the_partial_folder_removed(folder):
    first, second = writers(folder, 2)
    first.begin(96, part(whole(7), 0, 2), PROGRESS)
    second.begin(
        96, replace(part(whole(7), 1, 2), ready=fails(OSError(5, "Input/output error", "x"))), PROGRESS
    )
    assert second.wait_slice().errno == errno.EIO
    assert second.error is not None
    assert first.error is None
    first.abandon()  # what training does when it hears of the vote
    assert "another rank could not write its part" in reason(first.poll())
    assert reason(second.poll()) == "Input/output error (x)"
    assert second.error is None  # reported: the next vote is a new one
    assert names_in(folder.folder) == []


def test_files_of_a_failed_save_are_not_used_by_the_next_one(folder):
    """The first rank fails at once, the other writes its slice and mark of an older state after that."""
    first, second = writers(folder, 2)
    first.begin(96, replace(part(whole(1), 0, 2), ready=fails(OSError(28, "full"))), PROGRESS)
    assert isinstance(first.wait_commit(), Failed)
    second.begin(96, part(whole(1), 1, 2), PROGRESS)
    assert second.wait_slice() is None
    assert len(names_in(folder.folder)) == 1  # the leftover
    first.begin(96, part(whole(2), 0, 2), PROGRESS)
    assert first.wait_slice() is None
    second.begin(96, part(whole(2), 1, 2), PROGRESS)
    assert isinstance(first.wait_commit(), Saved)
    assert_holds(folder.newest(), whole(2))
    assert names_in(folder.folder) == ["000000000096"]


def test_a_start_removes_files_of_killed_ones(folder):
    for name in (".000000000096.old.1.partial", ".000000000048.discarded.partial"):
        (folder.folder / name).mkdir(parents=True)
    writers(folder, 2, session="new")
    assert names_in(folder.folder) == []


def test_only_rank_0_clears(folder):
    (folder.folder / ".000000000096.old.1.partial").mkdir(parents=True)
    CheckpointWriter(folder, Ranks(1, 2), "new")
    assert len(names_in(folder.folder)) == 1


def test_any_error_is_a_failed_save_with_its_message(folder):
    (writer,) = writers(folder, 1)
    writer.begin(96, replace(part(whole(7)), ready=fails(ValueError("odd"))), PROGRESS)
    assert reason(writer.wait_commit()) == "odd"
