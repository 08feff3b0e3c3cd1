"""Real processes write one checkpoint together, without any message between them but files."""

import json

import pytest
from harness.processes import wait_for_all
from harness.saves import assert_holds, names_in, whole, written

from lediflow.engine.checkpoints import CheckpointFolder

RANK = "harness.checkpoint_rank"


@pytest.fixture
def folder(tmp_path):
    """The checkpoints of a run that has saved at 48 images."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    written(folder, 48)
    return folder


def options(folder, session="one", rank=0, ranks=2, **more):
    common = {"folder": str(folder.folder), "session": session, "rank": rank, "ranks": ranks, "images": [96]}
    return json.dumps(common | more)


def test_after_a_kill_while_writing_a_slice_the_next_start_saves_normally(folder, forks):
    others = [
        forks.start(RANK, options(folder, rank=0)),
        forks.start(RANK, options(folder, rank=1, dies=True)),
    ]
    assert others[1].wait().status == -9
    assert names_in(folder.folder)[0].startswith(".000000000096.one")  # a half-written slice, nothing else
    assert others[0].poll() is None  # waits for the mark that never comes
    others[0].kill()  # as a launcher does
    assert_holds(folder.newest(), whole(48))

    again = wait_for_all([forks.start(RANK, options(folder, "two", rank)) for rank in (0, 1)])
    assert [process.status for process in again] == [0, 0]
    assert all(process.output.startswith("Saved(") for process in again), again
    assert names_in(folder.folder) == ["000000000048", "000000000096"]
    assert_holds(folder.newest(), whole(96))


def test_a_temporarily_full_disk_loses_one_save(folder, forks):
    """The kernel refuses files beyond a limit during the first of two saves."""
    finished = forks.start(RANK, options(folder, ranks=1, images=[96, 144], most_bytes=1000)).wait()
    assert finished.status == 0, finished.output
    first, second = finished.output.splitlines()
    assert first.startswith("Failed(reason='File too large")
    assert second.startswith("Saved(")
    assert names_in(folder.folder) == ["000000000048", "000000000144"]
    assert_holds(folder.newest(), whole(144))
