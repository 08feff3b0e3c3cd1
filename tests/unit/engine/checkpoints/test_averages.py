"""Stored averages, and those of other widths that are made of them when the run is over."""

import contextlib
import math
import resource

import pytest
import torch
from harness.saves import names_in, whole, written

from lediflow.engine.checkpoints import Checkpoint, CheckpointConfig, CheckpointFolder
from lediflow.engine.checkpoints.averages import (
    Snapshots,
    averaged_afterwards,
    find_snapshot_fault,
    raw,
    tensors_in,
)
from lediflow.engine.ema import Averages, EMAConfig, decays_for, role_of, roles
from lediflow.errors import UserError

IMAGES, BATCH, SAVED_EVERY, STORED_EVERY = 12_000, 20, 600, 1_200
WANTED = (0.04, 0.075, 0.12)
SEVERAL = EMAConfig(sigma_rels=[0.05, 0.10, *WANTED])


@contextlib.contextmanager
def files_of_at_most(count):
    """Inside, this process cannot write more bytes into a file, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", CheckpointConfig(keep_last=99))


@pytest.fixture
def snapshots(tmp_path):
    return Snapshots(tmp_path / "averages", every_images=100)


def places(snapshots):
    return [int(path.stem) for path in snapshots.paths()]


def test_averages_are_stored_with_checkpoints_that_are_far_enough_apart(folder, snapshots):
    for images in (48, 96, 144, 192, 240, 288):
        written(folder, images, snapshots=snapshots)
    assert places(snapshots) == [48, 192]  # 292 would be the next
    assert names_in(snapshots.folder) == ["000000000048.safetensors", "000000000192.safetensors"]


def test_a_run_that_reaches_an_image_count_again_stores_averages_again(folder, snapshots):
    written(folder, 48, whole(1), snapshots=snapshots)
    written(folder, 48, whole(2), snapshots=snapshots)
    found = dict(tensors_in(snapshots.paths()[0], "ema_0.050"))
    assert torch.equal(found["a"], whole(2)["ema_0.050/a"].half())


def test_after_a_return_averages_are_stored_at_the_same_image_counts(folder, snapshots):
    for images in (48, 96, 144, 192, 240, 288, 336, 96, 144, 192, 240):
        written(folder, images, snapshots=snapshots)
    assert places(snapshots) == [48, 192, 336]


@pytest.mark.parametrize("reason", ["zero is never", "no profiles"])
def test_no_averages_are_stored_with_interval_zero(folder, snapshots, reason):
    state = whole(0)
    if reason == "zero is never":
        snapshots.every_images = 0
    else:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("ema_")}
    written(folder, 48, state, snapshots=snapshots)
    assert not snapshots.folder.exists()


def test_stored_averages_stay_when_their_checkpoint_goes(folder, snapshots):
    folder.config = CheckpointConfig(keep_last=1)
    for images in (100, 200, 300):
        written(folder, images, snapshots=snapshots)
    assert [int(path.name) for path in folder.paths()] == [300]
    assert places(snapshots) == [100, 200, 300]


@pytest.mark.parametrize("damage", ["a flipped bit", "truncated", "empty"])
def test_damaged_averages_are_named_and_omitted(folder, snapshots, damage, caplog):
    for images in (100, 200, 300):
        written(folder, images, snapshots=snapshots)
    path, content = snapshots.paths()[1], bytearray(snapshots.paths()[1].read_bytes())
    content[-3] ^= 1
    path.write_bytes({"a flipped bit": content, "truncated": content[:-4], "empty": b""}[damage])
    assert find_snapshot_fault(path)
    assert [int(path.stem) for path in snapshots.whole(before=301, history="")] == [100, 300]
    assert str(path) in caplog.text


def test_averages_of_another_history_are_named_and_omitted(folder, snapshots, caplog):
    written(folder, 100, snapshots=snapshots, history="the run before")
    written(folder, 150, snapshots=snapshots, history="this run")
    written(folder, 250, snapshots=snapshots, history="this run")
    assert places(snapshots) == [100, 150, 250]  # its neighbours are its own
    assert [int(path.stem) for path in snapshots.whole(before=301, history="this run")] == [150, 250]
    assert "000000000100" in caplog.text and "another run" in caplog.text


def test_a_restarted_run_overwrites_files_of_the_previous_one(folder, snapshots):
    for history in ("the run before", "this run"):
        written(folder, 100, snapshots=snapshots, history=history)
    assert [int(path.stem) for path in snapshots.whole(before=301, history="this run")] == [100]


def test_a_full_disk_leaves_no_partial_file_of_averages(folder, snapshots):
    checkpoint = written(folder, 100)
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        snapshots.store(100, checkpoint.state, "")
    assert names_in(snapshots.folder) == []


def weight_at(images):
    """Weights of which some fluctuate, one drifts and one is constant."""
    progress = images / IMAGES
    return torch.tensor([math.sin(8 * progress), math.cos(5 * progress), progress, 1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that tracks five widths, and keeps two of them in checkpoints and stored averages."""
    root = tmp_path_factory.mktemp("run")
    folder = CheckpointFolder(root / "checkpoints", CheckpointConfig(keep_last=99))
    snapshots = Snapshots(root / "averages", every_images=STORED_EVERY)
    weight = weight_at(0)
    averages, tracked = Averages([weight], roles(SEVERAL)), {}
    for images in range(BATCH, IMAGES + BATCH, BATCH):
        weight.copy_(weight_at(images))
        averages.update(decays_for(SEVERAL, images, BATCH))
        if images % SAVED_EVERY == 0:
            tracked[images] = {role: kept[0].clone() for role, kept in averages.tensors.items()}
            kept = {f"{role}/w": tracked[images][role] for role in ("ema", "ema_0.050", "ema_0.100")}
            state = kept | {"weight/w": weight.clone(), "buffer/f": torch.arange(3.0)}
            written(folder, images, state, snapshots=snapshots)
    return folder, snapshots, tracked


@pytest.mark.parametrize("images", [12_000, 11_400, 7_200])  # 11 400: no averages are stored there
@pytest.mark.parametrize("sigma_rel", WANTED)
def test_another_width_equals_the_average_tracked_during_the_run(run, images, sigma_rel):
    folder, snapshots, tracked = run
    made = averaged_afterwards(Checkpoint(folder.path_at(images)), snapshots, sigma_rel)
    expected = tracked[images][role_of(sigma_rel)]
    # the fit of the densities is off by 1 % to 10 % of their norm, on weights in [-1, 1]; a width of 0.1 instead of
    # 0.075 would be off by 0.03
    torch.testing.assert_close(made.weights["w"], expected, rtol=0, atol=4e-3)
    assert torch.equal(made.weights["f"], torch.arange(3.0))


@pytest.mark.parametrize("images", [11_400, 12_000])
def test_a_width_that_was_kept_is_the_checkpoints_own_average(run, images):
    folder, snapshots, tracked = run
    made = averaged_afterwards(Checkpoint(folder.path_at(images)), snapshots, 0.05)
    torch.testing.assert_close(made.weights["w"], tracked[images]["ema_0.050"], rtol=0, atol=1e-6)
    assert made.misfit < 1e-6


def test_the_average_of_a_constant_weight_is_the_weight_without_stored_averages(run, tmp_path):
    """Only the checkpoint's own two averages to make it of: a poor fit, and said to be, but no smaller weights."""
    folder, _, _ = run
    made = averaged_afterwards(folder.newest(), Snapshots(tmp_path / "none"), 0.2)
    assert float(made.weights["w"][3]) == pytest.approx(1.0, abs=1e-5)
    assert made.misfit > 0.1


def test_raw_weights_are_the_last_ones(run):
    folder, _, _ = run
    found = raw(folder.newest())
    assert found.keys() == {"w", "f"}
    assert torch.equal(found["w"], weight_at(IMAGES))


def test_a_run_without_profiles_says_how_to_get_them(folder, snapshots):
    state = {key: tensor for key, tensor in whole(0).items() if not key.startswith("ema_")}
    with pytest.raises(UserError, match=r"train\.ema\.sigma_rels"):
        averaged_afterwards(written(folder, 48, state), snapshots, 0.1)
