"""A stalled run names the rank it waits for, and all ranks learn of it through files."""

import json
import os

import pytest

from lediflow.engine.hang_detection import (
    Fault,
    FaultLog,
    Heartbeat,
    Limits,
    RankState,
    RankView,
    find_fault,
    read_heartbeat,
    write_heartbeat,
)

LIMITS = Limits(
    starting_seconds=1000, data_seconds=100, step_seconds=100, saving_seconds=500, silent_seconds=60,
    grace_seconds=30, end_after_seconds=200,
)  # fmt: skip


def view(rank, phase, steps=7, beats=1, seconds=0.0, unchanged=0.0, **options):
    beat = Heartbeat(
        rank=rank, session="a", host=f"node{rank}", pid=1, phase=phase, steps=steps, beats=beats, seconds=seconds,
        written=1, **options,
    )  # fmt: skip
    return RankView(beat, unchanged)


def named(*views):
    found = find_fault(views, LIMITS)
    return (found.kind, found.ranks) if found else None


class TestWhoIsNamed:
    def test_no_rank_while_all_are_within_their_limits(self):
        assert named(view(0, "data", seconds=99), view(1, "step", seconds=99)) is None

    def test_the_rank_that_waits_for_data_not_those_that_wait_for_it(self):
        waiting = [view(rank, "step", beats=2, seconds=150) for rank in (0, 2, 3)]
        assert named(*waiting, view(1, "data", beats=1, seconds=150)) == ("stall", [1])

    def test_the_rank_with_the_fewest_steps_even_if_its_phase_comes_later(self):
        behind = view(1, "saving", steps=6, beats=3, seconds=600)
        assert named(view(0, "data", steps=7, beats=1, seconds=600), behind) == ("stall", [1])

    def test_no_rank_while_the_others_wait_for_a_save_within_its_limit(self):
        saving, waiting = view(0, "saving", steps=6, beats=3, seconds=450), view(1, "step", seconds=450)
        assert named(saving, waiting) is None

    def test_no_rank_while_the_first_step_compiles(self):
        assert named(view(0, "step", steps=0, seconds=900), view(1, "step", steps=0, seconds=900)) is None
        assert named(view(0, "step", steps=0, seconds=1001)) == ("stall", [0])

    def test_all_ranks_are_named_if_all_hang_at_the_same_point(self):
        found = find_fault([view(0, "step", seconds=101), view(1, "step", seconds=100)], LIMITS)
        assert (found.kind, found.ranks) == ("stall", [0, 1])
        assert "same place" in found.sentence

    def test_a_silent_rank_is_named_even_if_it_was_ahead(self):
        ahead = view(1, "step", steps=8, unchanged=61)
        assert named(view(0, "step"), ahead) == ("rank_silent", [1])

    def test_a_failed_rank_before_all_others(self):
        failed = view(2, "step", state=RankState.FAILED, message="OSError: no")
        found = find_fault([view(0, "step"), view(1, "step", unchanged=61), failed], LIMITS)
        assert (found.kind, found.ranks) == ("rank_failed", [2])
        assert found.sentence == "rank 2 on node2 failed: OSError: no"

    def test_no_rank_that_is_done(self):
        assert named(view(0, "finishing"), view(1, "data", unchanged=900, state=RankState.DONE)) is None

    def test_with_phase_place_and_host(self):
        found = find_fault([view(0, "step", beats=2), view(1, "data", seconds=120)], LIMITS)
        assert "rank 1 on node1 (data for 120 s, 7 steps done)" in found.sentence


def test_incomplete_heartbeats_are_ignored(tmp_path):
    beat = view(0, "step").heartbeat
    write_heartbeat(tmp_path, beat)
    assert read_heartbeat(tmp_path, 0, "a") == beat
    text = (tmp_path / "0.json").read_text()
    for torn in ("", text[:20], json.dumps({"rank": 0})):
        (tmp_path / "0.json").write_text(torn)
        assert read_heartbeat(tmp_path, 0, "a") is None


FAULT = Fault(kind="stall", ranks=[1], sentence="rank 1 stays")


@pytest.fixture
def books(tmp_path):
    return [FaultLog(tmp_path, "session") for _ in range(2)]


def test_the_first_error_written_is_read_by_all_ranks(books):
    assert [book.write(FAULT) for book in books] == [True, False]
    assert [book.next() for book in books] == [FAULT] * 2
    assert [book.next() for book in books] == [None] * 2


def test_a_temporarily_full_disk_does_not_block_later_writes(books, monkeypatch):
    class Full:
        def __init__(self, handle, mode):
            os.close(handle)

        def __enter__(self):
            raise OSError(28, "No space left on device")

        def __exit__(self, *error):
            """Never entered."""

    with monkeypatch.context() as full:
        full.setattr("lediflow.engine.hang_detection.os.fdopen", Full)
        with pytest.raises(OSError, match="No space"):
            books[0].write(FAULT)
    assert books[1].write(FAULT)
    assert [book.next() for book in books] == [FAULT] * 2
