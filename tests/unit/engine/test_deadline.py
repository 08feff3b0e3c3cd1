"""The last save ends before the wall time, and no earlier than it must; time is made up."""

import random

import pytest

from lediflow.engine.deadline import Deadline, StopConfig, find_deadline

HOUR = 3600.0


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def deadline(end=10 * HOUR, clock=None, **options):
    return Deadline(end, StopConfig(**options), clock or Clock())


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


def test_a_short_job_gives_up_a_tenth_at_most_to_margin_and_guess():
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
    def test_is_slurms(self):
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

    def test_is_asked_for_in_words_where_slurm_names_none(self, caplog):
        assert find_deadline(StopConfig(), {"SLURM_JOB_END_TIME": "UNLIMITED"}, started=0) is None
        assert "stop.wall_minutes" in caplog.text
