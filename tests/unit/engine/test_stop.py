"""A request to stop raises a flag and nothing else, wherever it comes from; the last save ends before the wall time.

Time is made up. A second Ctrl-C ends the process.
"""

import random
import signal
import sys
from pathlib import Path

import pytest
from harness.processes import Started
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE, LocalJobEnvironment

import lediflow.train
from lediflow.engine.stop import (
    STOP_SIGNALS,
    Deadline,
    StopConfig,
    StopReason,
    StopRequest,
    find_deadline,
)
from lediflow.errors import INTERRUPTED


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


class Job:
    """As hydra's launcher submits it: the same call again."""

    def __call__(self):
        pass

    def checkpoint(self):
        return DelayedSubmission(self)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_stop_signal_sets_the_flag_and_work_continues(number):
    with StopRequest() as stop:
        assert stop.vote() is StopReason.NONE
        signal.raise_signal(number)
        assert stop.signal is number
        assert stop.vote() is StopReason.SIGNAL


WAITING = """
import datetime, sys
import torch.distributed as dist
from lediflow.engine.stop import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    dist.TCPStore("127.0.0.1", 0, is_master=True).wait(["never"], datetime.timedelta(seconds=100))
"""


@pytest.mark.processes
def test_a_second_ctrl_c_ends_the_process_even_while_it_waits_in_a_collective():
    process = Started([sys.executable, "-c", WAITING])
    process.wait_until(lambda: "ready" in process.output())
    for _ in range(2):
        process.send(signal.SIGINT)
        process.wait_for_delivery(signal.SIGINT)  # two signals at once are one
    assert process.wait().status == INTERRUPTED


AT_WORK = """
import time
from lediflow.engine.stop import StopRequest
try:
    with StopRequest() as stop:
        while True:
            time.sleep(0.01)
            print(f"{stop.signal=} {stop.was_interrupted=}", flush=True)
except KeyboardInterrupt:
    print("in order, after", stop.signal.name)
"""


@pytest.mark.processes
def test_a_second_ctrl_c_interrupts_python_at_once_after_any_first_request():
    process = Started([sys.executable, "-c", AT_WORK])
    process.wait_until(lambda: "stop.signal=None" in process.output())
    process.send(signal.SIGTERM)
    process.wait_until(lambda: "SIGTERM: 15> stop.was_interrupted=False" in process.output())
    process.send(signal.SIGINT)
    process.wait_until(lambda: "SIGTERM: 15> stop.was_interrupted=True" in process.output())
    process.send(signal.SIGINT)
    assert "in order, after SIGTERM" in process.wait().output


EARLY = """
from lediflow.engine.early_signals import note_signals
note_signals()
print("ready", flush=True)
while not __import__("os").path.exists(__import__("sys").argv[1]):
    pass
from lediflow.engine.stop import StopRequest
with StopRequest() as stop:
    print(repr(stop.vote()), stop.signal.name)
"""


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_during_the_imports_is_a_stop_request(tmp_path, number):
    process = Started([sys.executable, "-c", EARLY, str(tmp_path / "go")])
    process.wait_until(lambda: "ready" in process.output())
    process.send(number)
    (tmp_path / "go").touch()
    assert f"<StopReason.SIGNAL: 2> {number.name}" in process.wait().output


def test_training_records_signals_before_its_slow_imports():
    text = Path(lediflow.train.__file__).read_text()
    assert text.index("note_signals()") < text.index("import logging")


def test_ctrl_c_after_slurms_warning_does_not_tear_the_save():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal is signal.SIGUSR2


def test_afterwards_signals_mean_what_they_meant_before():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with pytest.raises(ZeroDivisionError), StopRequest():
        1 / 0  # noqa: B018
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_every_reason_ends_the_process_with_a_status_of_its_own():
    statuses = {reason: reason.exit_status for reason in StopReason}
    assert statuses == {
        StopReason.NONE: 0, StopReason.SIGNAL: 75, StopReason.WALL_TIME: 79, StopReason.STOP_FILE: 80,
        StopReason.LEASE_LOST: 82,
    }  # fmt: skip
    assert len({reason.sentence for reason in StopReason}) == len(StopReason)


class TestTheStopFile:
    def test_is_checked_at_once_and_then_every_second(self, tmp_path):
        clock = Clock()
        stop = StopRequest(tmp_path / "stop", clock=clock)
        assert stop.vote() is StopReason.NONE
        (tmp_path / "stop").touch()
        clock.now = 0.99
        assert stop.vote() is StopReason.NONE
        clock.now = 1.0
        assert stop.vote() is StopReason.STOP_FILE

    def test_stays_a_request_once_it_was_seen(self, tmp_path):
        (tmp_path / "stop").touch()
        stop = StopRequest(tmp_path / "stop", clock=Clock())
        assert stop.vote() is StopReason.STOP_FILE
        (tmp_path / "stop").unlink()
        assert stop.vote() is StopReason.STOP_FILE

    def test_is_removed_when_handled_so_that_the_next_start_runs(self, tmp_path):
        (tmp_path / "stop").touch()
        stop = StopRequest(tmp_path / "stop", clock=Clock())
        assert stop.vote() is StopReason.STOP_FILE
        stop.consume()
        assert not (tmp_path / "stop").exists()
        assert StopRequest(tmp_path / "stop").vote() is StopReason.NONE

    def test_is_kept_if_another_reason_stopped_the_run_before_it_was_read(self, tmp_path):
        stop = StopRequest(tmp_path / "stop", clock=Clock())
        assert stop.vote() is StopReason.NONE
        (tmp_path / "stop").touch()
        stop.consume()
        assert (tmp_path / "stop").exists()

    def test_outranks_signal_and_wall_time(self, tmp_path):
        (tmp_path / "stop").touch()
        over = Deadline(0.0, Clock())
        with StopRequest(tmp_path / "stop", over) as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.vote() is StopReason.STOP_FILE
        assert max(StopReason) is StopReason.LEASE_LOST  # then nothing is written any more: test_lease.py


def test_the_wall_time_requests_a_stop_near_its_deadline():
    clock = Clock()
    stop = StopRequest(deadline=Deadline(1000.0, clock, margin_seconds=10, save_seconds=30))
    clock.now = 959.9
    assert stop.vote() is StopReason.NONE
    clock.now = 960.0
    assert stop.vote() is StopReason.WALL_TIME


class TestTheHandlerBefore:
    @pytest.fixture
    def calls(self):
        calls = []
        before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
        yield calls
        signal.signal(signal.SIGUSR2, before)

    def test_is_called_with_its_signal_after_the_state_is_saved(self, calls):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert calls == []
            stop.call_previous_handler(StopReason.SIGNAL)
        assert calls == [signal.SIGUSR2]

    @pytest.mark.parametrize("reason", [StopReason.SIGNAL, StopReason.WALL_TIME])
    def test_is_called_if_another_rank_was_warned_or_the_wall_time_is_near(self, calls, reason):
        with StopRequest() as stop:
            stop.call_previous_handler(reason)
        assert calls == [signal.SIGUSR2]

    def test_is_not_called_for_a_stop_file(self, calls):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGUSR2)
            stop.call_previous_handler(StopReason.STOP_FILE)
        assert calls == []

    def test_is_not_called_for_other_signals(self, calls):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGTERM)  # whose handler before was the default
            stop.call_previous_handler(StopReason.SIGNAL)
        assert calls == []

    def test_is_not_pythons_own_for_ctrl_c(self):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            stop.call_previous_handler(StopReason.SIGNAL)


def test_submitit_requeues_the_job_once_the_state_is_saved(tmp_path, monkeypatch):
    """Its own handler, installed as it does inside a job: it writes the job down again and ends the process."""
    for name, value in (("JOB_ID", "7"), ("GLOBALID", "0"), ("NTASKS", "1")):
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
    job = DelayedSubmission(Job())
    job.set_timeout(timeout_min=60, max_num_timeout=3)
    paths = JobPaths(tmp_path, "7")
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGCONT)}
    try:
        LocalJobEnvironment()._handle_signals(paths, job)
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert not paths.submitted_pickle.exists()
            with pytest.raises(SystemExit) as left:
                stop.call_previous_handler(StopReason.SIGNAL)
        assert left.value.code == LOCAL_REQUEUE_RETURN_CODE
        assert paths.submitted_pickle.exists()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


HOUR = 3600.0


def deadline(end=10 * HOUR, clock=None, **options):
    return Deadline(end, clock or Clock(), **options)


def test_before_anything_is_measured_margin_and_guess_are_kept_free():
    assert deadline(margin_seconds=60, save_seconds=90).stop_at == 10 * HOUR - 60 - 90


def test_two_steps_the_save_the_margin_and_all_else_must_fit():
    found = deadline(margin_seconds=60)
    for kind, seconds in [("step", 300), ("step", 2.0), ("step", 3.0), ("save", 40), ("validation", 25)]:
        found.observe(kind, seconds)
    # asked now, answered a step later: one step passes before the next question, one before its answer
    assert found.stop_at == 10 * HOUR - 60 - 2 * 3.0 - 40 - 25


def test_a_measured_save_replaces_the_guess():
    found = deadline(margin_seconds=0, save_seconds=500)
    found.observe("save", 7)
    assert found.stop_at == 10 * HOUR - 7


def test_the_first_step_compiles_and_is_forgotten_at_the_second():
    found = deadline(margin_seconds=0, save_seconds=0)
    found.observe("step", 200)
    assert found.stop_at == 10 * HOUR - 400
    found.observe("step", 1)
    assert found.stop_at == 10 * HOUR - 2


def test_one_slow_step_is_forgotten_after_many_fast_ones():
    found = deadline(margin_seconds=0, save_seconds=0)
    for seconds in (1, 60, *[1] * 300):
        found.observe("step", seconds)
    assert found.stop_at == 10 * HOUR - 2


def test_margin_and_assumed_save_take_at_most_a_tenth_of_a_short_job():
    assert deadline(end=100, margin_seconds=60, save_seconds=60).stop_at == pytest.approx(90)


def test_a_save_is_worthwhile_unless_the_last_one_would_wait_for_it():
    clock = Clock()
    found = deadline(clock=clock, margin_seconds=60)
    found.observe("save", 40)
    begin_of_the_last = 10 * HOUR - 60 - 40
    clock.now = begin_of_the_last - 40
    assert found.is_save_worthwhile
    clock.now = begin_of_the_last - 39
    assert not found.is_save_worthwhile
    assert not found.is_near
    clock.now = begin_of_the_last
    assert found.is_near


@pytest.mark.parametrize("seed", range(50))
def test_a_run_never_ends_after_the_wall_time_if_nothing_takes_longer_than_seen(seed):
    """The loop as it is: one vote a step, answered a step later, saves and validations in between."""
    draw = random.Random(seed)
    slowest_step, slowest_save = draw.uniform(0.1, 30), draw.uniform(0.1, 200)
    clock, validation = Clock(), draw.uniform(0, 100)
    end = draw.uniform(1, 5) * HOUR
    found = deadline(end, clock, margin_seconds=draw.uniform(0, 100))
    for kind, seconds in [("step", 500), ("step", slowest_step), ("save", slowest_save)]:
        found.observe(kind, seconds)
    found.observe("validation", validation)

    voted, steps = False, 0
    while True:
        clock.now += draw.uniform(0, slowest_step)
        steps += 1
        if steps % 200 == 0:  # the slowest stays in mind
            found.observe("step", slowest_step)
        answer, voted = voted, found.is_near
        if answer:
            break
        if steps % 500 == 0:
            clock.now += validation
    assert clock.now + slowest_save <= end - found.margin
    # and it is not wasteful: nothing beyond what had to be kept free, and the step that was under way
    assert clock.now >= end - found.margin - 2 * slowest_step - slowest_save - validation


class TestTheEnd:
    def test_is_read_from_slurm(self):
        found = find_deadline(StopConfig(), {"SLURM_JOB_END_TIME": "36000"}, started=5, clock=Clock(5))
        assert found.end == 36_000

    def test_is_counted_from_the_start_of_the_process(self):
        found = find_deadline(StopConfig(wall_minutes=90), {}, started=100, clock=Clock(160))
        assert found.end == 100 + 90 * 60

    @pytest.mark.parametrize(("minutes", "end"), [(10, 600), (1000, 36_000)])
    def test_is_the_earlier_of_the_two(self, minutes, end):
        env = {"SLURM_JOB_END_TIME": "36000"}
        assert find_deadline(StopConfig(wall_minutes=minutes), env, started=0, clock=Clock()).end == end

    def test_may_not_exist(self):
        assert find_deadline(StopConfig(), {}, started=0) is None

    def test_is_requested_by_a_warning_if_slurm_does_not_give_it(self, caplog):
        assert find_deadline(StopConfig(), {"SLURM_JOB_END_TIME": "UNLIMITED"}, started=0) is None
        assert "stop.wall_minutes" in caplog.text
