"""Which checkpoints are whole, which is the newest, and which may go."""

import json
import logging
import random
import shutil

import pytest
import torch

from lediflow.disk import sha256_of
from lediflow.engine.checkpoints.folder import (
    Checkpoint,
    CheckpointConfig,
    CheckpointFolder,
    discard,
    find_fault,
)
from lediflow.engine.checkpoints.slices import slice_name, write_slice, write_tensors
from lediflow.engine.protocol import Extent

RANKS, SIZE = 2, 8
FIRST = slice_name(0, RANKS)
WEIGHT = torch.arange(float(SIZE))


def write_checkpoint(folder, images, cuts=(0, 4, 8)):
    """As two ranks would leave it, but written without any of the code that does so."""
    path = folder / f"{images:012d}"
    path.mkdir(parents=True)
    for rank in range(RANKS):
        piece = WEIGHT[cuts[rank] : cuts[rank + 1]]
        tensors = {"weight/a": piece, "ema/a": -piece}
        places = dict.fromkeys(tensors, Extent(cuts[rank], (SIZE,)))
        write_slice(path / slice_name(rank, RANKS), tensors, places, steps=5)
    (path / "model.safetensors").write_bytes(b"weights of an export")
    (path / "progress.json").write_text(json.dumps({"clock": {"images_seen": images}}))
    sign(path)
    return path


def sign(path):
    """A manifest of what is there."""
    files = [file for file in path.iterdir() if file.name != "manifest.json"]
    (path / "manifest.json").write_text(
        json.dumps({"sha256": {file.name: sha256_of(file) for file in files}})
    )


def truncate(file, share=0.5):
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def flip_bit(file, share):
    content = bytearray(file.read_bytes())
    content[int((len(content) - 1) * share)] ^= 1
    file.write_bytes(content)


def resigned(path, file, change):
    """Damage that the sums know nothing of: as it was written, so it was signed."""
    change(path / file)
    sign(path)


def set_manifest(path, content):
    (path / "manifest.json").write_text(json.dumps(content))


def change_sums(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest["sha256"])
    set_manifest(path, manifest)


@pytest.fixture
def path(tmp_path):
    return write_checkpoint(tmp_path, 64)


def test_nothing_is_wrong_with_a_whole_checkpoint(path):
    assert find_fault(path) is None


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", [FIRST, slice_name(1, RANKS), "model.safetensors", "progress.json"])
def test_one_flipped_bit_is_found_in_the_file_where_it_is(path, name, share):
    flip_bit(path / name, share)
    assert find_fault(path) == f"{name} does not match its SHA-256 (truncated or altered)"


DAMAGES = {
    "a truncated slice": (lambda path: truncate(path / FIRST), f"{FIRST} does not match its SHA-256"),
    "a slice cut to nothing": (lambda path: truncate(path / FIRST, 0), f"{FIRST} does not match"),
    "a missing slice": (lambda path: (path / FIRST).unlink(), f"{FIRST} is missing"),
    "missing averages": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
    "an extra file": (lambda path: (path / "notes.txt").touch(), "notes.txt is not in its manifest.json"),
    "a mark": (lambda path: (path / f"{FIRST}.mark").touch(), f"{FIRST}.mark is not in its manifest.json"),
    "an extra slice": (
        lambda path: shutil.copy(path / FIRST, path / slice_name(2, 3)),
        f"{slice_name(2, 3)} is not in its manifest.json",
    ),
    "altered progress": (
        lambda path: (path / "progress.json").write_text('{"clock": {"images_seen": 65}}'),
        "progress.json does not match its SHA-256",
    ),
    "missing progress": (lambda path: (path / "progress.json").unlink(), "progress.json is missing"),
    "a missing manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json cannot be read"),
    "a torn manifest": (lambda path: truncate(path / "manifest.json"), "manifest.json cannot be read"),
    "an empty manifest": (lambda path: truncate(path / "manifest.json", 0), "manifest.json cannot be read"),
    "a manifest of bytes": (
        lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"),
        "manifest.json cannot be read",
    ),
    "a manifest of a list": (lambda path: set_manifest(path, []), "manifest.json cannot be read"),
    "a manifest of a name": (lambda path: set_manifest(path, {"sha256": "x"}), "names no files"),
    "a manifest of nothing": (lambda path: set_manifest(path, {"sha256": {}}), "manifest.json names nothing"),
    "a manifest of one slice less": (
        lambda path: change_sums(path, lambda sums: sums.pop(FIRST)),
        "no state of 1 ranks",
    ),
    "a manifest of files elsewhere": (
        lambda path: change_sums(path, lambda sums: sums.update({"../x": "0"})),
        "no state of 2 ranks",
    ),
    "a sum that is none": (
        lambda path: change_sums(path, lambda sums: sums.update({FIRST: 3})),
        f"{FIRST} does not match its SHA-256",
    ),
    "a folder in place of a slice": (
        lambda path: ((path / FIRST).unlink(), (path / FIRST).mkdir()),
        "it cannot be read",
    ),
    "an empty folder": (
        lambda path: (shutil.rmtree(path), path.mkdir()),
        "manifest.json cannot be read",
    ),
    "no folder": (shutil.rmtree, "manifest.json cannot be read"),
    "a truncated slice, signed": (
        lambda path: resigned(path, FIRST, truncate),
        "its slices are not a state",
    ),
    "an export in place of a slice, signed": (
        lambda path: resigned(path, FIRST, lambda file: write_tensors(file, {}, {})),
        "its slices are not a state",
    ),
    "a slice of places without names, signed": (
        lambda path: resigned(
            path, FIRST, lambda file: write_tensors(file, {}, {"extents": "[]", "steps": "5"})
        ),
        "its slices are not a state",
    ),
    "one slice twice, signed": (
        lambda path: resigned(path, slice_name(1, RANKS), lambda file: shutil.copy(path / FIRST, file)),
        "elements 0 to 4 of weight/a are there twice",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named(path, damage, words):
    damage(path)
    assert words in find_fault(path)


def test_slices_with_a_gap_are_refused(tmp_path):
    path = write_checkpoint(tmp_path, 64, cuts=(0, 4, 7))
    assert "elements 7 and following of weight/a are missing" in find_fault(path)


def test_the_files_of_a_checkpoint_are_read(path):
    checkpoint = Checkpoint(path)
    assert checkpoint.images_seen == 64
    assert checkpoint.progress == {"clock": {"images_seen": 64}}
    assert checkpoint.model == path / "model.safetensors"
    assert checkpoint.state.steps == 5
    tensors = checkpoint.tensors()
    assert torch.equal(tensors["weight/a"], WEIGHT)
    assert torch.equal(tensors["ema/a"], -WEIGHT)


def test_checkpoints_sort_by_images_and_other_names_are_ignored(tmp_path):
    folder = CheckpointFolder(tmp_path)
    counts = [5, 40, 300, 2_000, 10**9, 10**11]
    for images in random.Random(0).sample(counts, len(counts)):
        folder.path_at(images).mkdir()
    for name in (".000000000064.s.1.partial", "000000000064.old", "best", "64x"):
        (tmp_path / name).mkdir()
    (tmp_path / "000000000007").touch()  # a file
    assert [int(path.name) for path in folder.paths()] == counts


class TestNewest:
    @pytest.fixture
    def folder(self, tmp_path):
        for images in (8, 64, 120):
            write_checkpoint(tmp_path, images)
        return CheckpointFolder(tmp_path)

    def test_is_the_one_with_most_images(self, folder, caplog):
        assert folder.newest() == Checkpoint(folder.path_at(120))
        assert caplog.messages == []

    def test_skips_damaged_ones_and_logs_which_and_why(self, folder, caplog):
        flip_bit(folder.path_at(120) / FIRST, 0.5)
        (folder.path_at(64) / FIRST).unlink()
        assert folder.newest() == Checkpoint(folder.path_at(8))
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert f"{folder.path_at(120)}: {FIRST} does not match its SHA-256" in caplog.messages[0]
        assert f"{folder.path_at(64)}: {FIRST} is missing" in caplog.messages[1]

    def test_is_none_if_all_are_damaged(self, folder):
        for path in folder.paths():
            (path / "manifest.json").unlink()
        assert folder.newest() is None

    def test_is_none_without_a_folder(self, tmp_path):
        assert CheckpointFolder(tmp_path / "none").newest() is None


def saved_in_turn(folder, sequence):
    for images in sequence:
        folder.path_at(images).mkdir(parents=True)
        folder.drop_old(newest=folder.path_at(images))
    return [int(path.name) for path in folder.paths()]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "sequence", "left"),
    [
        (2, 0, [10, 20, 30, 40], [30, 40]),
        (1, 0, [10, 20, 30], [30]),
        (0, 0, [10, 20, 30], [30]),  # what was just written stays
        (5, 0, [10, 20], [10, 20]),
        (1, 100, [50, 100, 150, 200, 250], [100, 200, 250]),
        (1, 100, [90, 110, 130, 150, 210], [110, 210]),  # the first beyond each multiple
        (2, 100, [90, 110, 130, 250, 260], [110, 250, 260]),
        (1, 100, [350, 360, 370], [350, 370]),  # one crossing, however many multiples
        (1, 10, [10, 20, 30], [10, 20, 30]),
        (3, 1000, [10, 20, 30, 40, 50], [30, 40, 50]),
    ],
)
def test_the_last_ones_and_those_after_a_multiple_are_kept(tmp_path, keep_last, keep_every, sequence, left):
    config = CheckpointConfig(keep_last=keep_last, keep_every_images=keep_every)
    assert saved_in_turn(CheckpointFolder(tmp_path, config), sequence) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{images:012d}" for images in left]


@pytest.mark.parametrize("seed", range(5))
def test_the_kept_checkpoints_follow_from_the_whole_history(tmp_path, seed):
    """Seen from the end: the last ones, and the first one in each stretch between multiples."""
    chance = random.Random(seed)
    sequence = sorted(chance.sample(range(1, 2_000), 25))
    every, last = chance.choice([100, 300]), chance.choice([1, 2, 4])
    config = CheckpointConfig(keep_last=last, keep_every_images=every)
    firsts = {}
    for images in sequence:
        firsts.setdefault(images // every, images)
    firsts.pop(0, None)  # before the first multiple nothing was crossed
    expected = sorted({*sequence[-last:], *firsts.values()})
    assert saved_in_turn(CheckpointFolder(tmp_path, config), sequence) == expected


def test_damaged_checkpoints_after_the_newest_neither_count_nor_are_removed(tmp_path):
    folder = CheckpointFolder(tmp_path, CheckpointConfig(keep_last=2))
    for images in (10, 20, 30, 90):
        folder.path_at(images).mkdir()
    folder.drop_old(newest=folder.path_at(30))
    assert [int(path.name) for path in folder.paths()] == [20, 30, 90]


def test_files_that_cannot_be_removed_are_named_and_the_others_removed(tmp_path, caplog):
    (tmp_path / ".000000000010.discarded.partial").touch()  # a file: no folder can take its name
    folder = CheckpointFolder(tmp_path, CheckpointConfig(keep_last=1))
    for images in (10, 20, 30):
        folder.path_at(images).mkdir()
    folder.drop_old(newest=folder.path_at(30))
    assert [int(path.name) for path in folder.paths()] == [10, 30]
    assert f"{folder.path_at(10)} cannot be removed: [Errno 20] Not a directory" in caplog.messages[0]


def test_only_files_of_other_sessions_are_removed(tmp_path):
    names = {
        ".000000000064.one.1.partial": False,
        ".000000000064.two.1.partial": True,
        ".000000000064.twofold.1.partial": False,
        ".000000000064.discarded.partial": False,
        "000000000064": True,
        ".hidden": True,
        "notes.partial": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / FIRST).touch()
    CheckpointFolder(tmp_path).clear_partial(keep="two")
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


@pytest.mark.parametrize("number", [1, 11])
def test_an_attempt_is_distinguished_from_others_of_its_session(tmp_path, number):
    for other in (1, 2, 11, 12):
        (tmp_path / f".000000000064.s.{other}.partial").mkdir()
    CheckpointFolder(tmp_path).clear_partial(keep=f"s.{number}")
    assert [path.name for path in tmp_path.iterdir()] == [f".000000000064.s.{number}.partial"]


def test_clearing_a_missing_folder_does_nothing(tmp_path):
    CheckpointFolder(tmp_path / "none").clear_partial(keep="s")
    assert not (tmp_path / "none").exists()


def test_a_discarded_checkpoint_is_renamed_before_its_files_are_deleted(path, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # killed before it began
    discard(path)
    assert CheckpointFolder(path.parent).paths() == []
    assert [len(list(left.iterdir())) for left in path.parent.iterdir()] == [RANKS + 3]


def test_discarding_replaces_a_partially_discarded_folder(path):
    aside = path.with_name(f".{path.name}.discarded.partial")
    aside.mkdir()
    (aside / "left").touch()
    discard(path)
    discard(path)  # it is not there
    assert list(path.parent.iterdir()) == []
