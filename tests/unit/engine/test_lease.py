"""Who may write a run folder. Processes of their own: tests/distributed/test_lease_processes.py."""

import dataclasses
import os
import subprocess
import time

import pytest
from harness.patience import wait_until
from harness.saves import part, whole

from lediflow.engine.checkpoints import CheckpointFolder, CheckpointWriter, Failed, Saved
from lediflow.engine.checkpoints.averages import Snapshots
from lediflow.engine.lease import (
    Lease,
    LeaseLostError,
    NoLease,
    encoded,
    leased,
    own_record,
    put,
    read_lease,
    write,
)
from lediflow.engine.ranks import Ranks
from lediflow.engine.stop import StopReason, StopRequest
from lediflow.errors import UserError
from lediflow.tracking.event_log import JsonlTracker, read_events
from lediflow.tracking.tracker import FencedTracker

SOON, NEVER = 0.05, 1e6  # seconds between renewals
CALM = 0.3  # where a thread that gets no processor for an interval would fail the test


def record(job=None, restart=0, interval=NEVER, **changes):
    env = {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)} if job else {}
    return dataclasses.replace(own_record(env), interval=interval, **changes)


def elsewhere(**options):
    """The lease of a process on another machine, whose end cannot be seen from here."""
    return record(host="node7", machine="another", **options)


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lease.json"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease(path, clock):
    """Held, with 10 seconds between renewals, of which none comes by itself."""
    with Lease(path, record(interval=10), clock) as held:
        yield held


def takes(path, mine):
    with Lease(path, mine):
        return read_lease(path).token == mine.token


class TestWhoMayTakeIt:
    def test_is_taken_by_the_first_start(self, path):
        assert takes(path, record())

    def test_is_taken_after_it_was_released(self, path):
        assert takes(path, record())
        assert read_lease(path).is_given_back
        assert takes(path, record())

    def test_is_taken_at_once_if_the_holder_is_dead(self, path):
        put(path, record(pid=dead_process()))
        assert takes(path, record())  # three intervals would be a month

    def test_is_taken_if_it_is_not_renewed_for_three_intervals(self, path):
        put(path, elsewhere(interval=SOON))
        started = time.monotonic()
        assert takes(path, record())
        assert time.monotonic() - started >= 3 * SOON

    def test_is_taken_if_the_file_is_damaged(self, path):
        path.write_text('{"token": "a", ')
        assert takes(path, record())

    def test_is_taken_by_a_later_start_of_the_same_job_even_if_the_holder_is_alive(self, path):
        with Lease(path, record("77", restart=1, interval=SOON), leave=lambda status: None):
            assert takes(path, record("77", restart=2))

    @pytest.mark.parametrize(
        "newcomer", [record(), record("78", restart=2), record("77", restart=1), record("77", restart=0)],
        ids=["no job", "another job", "the same start", "an earlier start"],
    )  # fmt: skip
    def test_is_not_taken_while_it_is_renewed(self, path, newcomer):
        with Lease(path, record("77", restart=1, interval=CALM)) as lease:
            with pytest.raises(UserError, match="is being trained by SLURM job 77, process") as refused:
                Lease(path, newcomer).__enter__()
            assert lease.confirm()
        assert "scancel 77" in str(refused.value)
        assert f"touch {path.parent}/stop" in str(refused.value)

    def test_is_taken_by_only_one_of_two_simultaneous_starts(self, path):
        with Lease(path, record()) as first:
            put(path, record())  # the second one saw no lease either
            with pytest.raises(LeaseLostError):
                first.fence()


class TestATakeover:
    def test_the_old_session_notices_and_exits_and_the_new_one_waits(self, path):
        left = []
        with Lease(path, record("77", interval=SOON), leave=left.append) as older:
            with Lease(path, record("77", restart=1)) as newer:
                older.thread.join()
                assert left == [82]  # its own program did not leave in time
                assert not older.holds()
                assert newer.confirm()
            assert [file.name for file in path.parent.iterdir()] == ["lease.json"]

    def test_an_old_session_that_exits_in_time_is_not_killed(self, path):
        left = []
        with Lease(path, record("77", interval=CALM), leave=left.append) as older:
            put(path, record("77", restart=1))
            assert wait_until(lambda: not older.holds(), seconds=10, pause_seconds=SOON / 10)
        older.thread.join()
        assert left == []

    def test_the_old_session_cannot_change_the_new_lease(self, path):
        with Lease(path, record("77"), leave=lambda status: None) as older:
            newer = record("77", restart=1)
            put(path, newer)
            write(older.descriptor, older.record)  # had looked just before
            assert read_lease(path) == newer
            assert not older.confirm()
        assert read_lease(path) == newer

    def test_a_silent_holder_is_waited_for_three_intervals(self, path):
        put(path, elsewhere(job="77", interval=SOON))
        started = time.monotonic()
        assert takes(path, record("77", restart=1))
        assert time.monotonic() - started >= 3 * SOON

    def test_a_dead_holder_is_not_waited_for(self, path):
        put(path, record("77", pid=dead_process()))
        assert takes(path, record("77", restart=1))


class TestHolding:
    def test_a_lease_is_renewed_by_itself(self, path):
        with Lease(path, record(interval=SOON)):
            assert wait_until(lambda: read_lease(path).renewals >= 3, seconds=10)

    def test_after_a_pause_without_a_takeover_the_lease_is_kept(self, lease, clock, path):
        clock.now = 1000.0
        assert lease.holds()
        assert read_lease(path).renewals == 1

    def test_after_a_pause_with_a_takeover_the_lease_is_lost(self, lease, clock, path):
        put(path, elsewhere())
        clock.now = 29.0
        assert lease.holds()  # was not read: no other start may consider it abandoned yet
        clock.now = 30.0
        assert not lease.holds()

    def test_a_file_that_cannot_be_written_loses_the_lease_after_three_intervals(self, lease, clock, path):
        with path.open() as read_only:
            os.dup2(read_only.fileno(), lease.descriptor)
        clock.now = 29.0
        assert lease.confirm()
        clock.now = 30.0
        assert not lease.confirm()

    def test_a_disk_that_hangs_loses_the_lease_after_three_intervals(self, path, clock):
        with Lease(path, record(interval=SOON), clock) as lease, lease.lock:  # held by the renewal that hangs
            assert lease.holds()
            clock.now = 3 * SOON
            assert not lease.holds()

    def test_deleting_the_file_ends_the_run(self, lease, path):
        path.unlink()
        assert not lease.confirm()

    def test_afterwards_nothing_may_be_written(self, path):
        with Lease(path, record()) as lease:
            pass
        assert not lease.holds()
        with pytest.raises(LeaseLostError):
            lease.fence()

    def test_only_rank_0_writes_the_file(self, path):
        with leased(path, is_first=False) as everyones:
            assert isinstance(everyones, NoLease)
            assert everyones.holds()
            everyones.fence()
        assert not path.exists()
        with leased(path, is_first=True) as lease:
            assert read_lease(path) == lease.record

    def test_a_renewal_overwrites_the_previous_record_completely(self):
        assert {len(encoded(record(renewals=number))) for number in (0, 10**9)} == {1024}


class TestWhatAStartWithoutALeaseDoes:
    def test_it_votes_to_exit_with_precedence_over_other_requests(self, tmp_path):
        stop = StopRequest(file=tmp_path / "stop")
        stop.file.touch()
        assert stop.vote() is StopReason.STOP_FILE
        stop.holds = lambda: False
        assert stop.vote() is StopReason.LEASE_LOST
        assert StopReason.LEASE_LOST.exit_status == 82

    def test_its_checkpoint_gets_no_name_and_its_averages_are_not_stored(self, lease, path, tmp_path):
        folder = CheckpointFolder(tmp_path / "checkpoints")
        writer = CheckpointWriter(folder, Ranks(), "old", Snapshots(tmp_path / "averages", every_images=1))
        writer.fence = lease.fence
        assert isinstance(saved(writer, 48), Saved)
        put(path, elsewhere())
        assert isinstance(saved(writer, 96), Failed)
        assert [file.name for file in folder.folder.iterdir()] == ["000000000048"]
        assert [file.name for file in (tmp_path / "averages").iterdir()] == ["000000000048.safetensors"]

    def test_it_logs_nothing(self, lease, clock, path, tmp_path):
        tracker = FencedTracker(JsonlTracker(tmp_path / "events.jsonl"), lease.holds)
        tracker.record("train", 8, loss=1.0)
        put(path, elsewhere())
        clock.now = 1000.0
        tracker.record("train", 16, loss=1.0)
        tracker.close()
        assert [event["images_seen"] for event in read_events(tmp_path / "events.jsonl")] == [8]


def saved(writer, images):
    writer.begin(images, part(whole(images)), {"images_seen": images})
    return writer.wait_commit()
