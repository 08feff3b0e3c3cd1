"""Where the time of a step goes, by a made-up clock; quantiles by numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from lediflow.engine.timings import (
    KEPT_STEPS,
    NAMES,
    CudaStopwatch,
    HostStopwatch,
    TimedWork,
    Timings,
    seconds_by_rank,
    stragglers,
    time_calls,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def passing(self, seconds, result=None):
        """A function that takes so long."""

        def call(*arguments, **options):
            self.now += seconds
            return result

        return call


@pytest.fixture
def clock():
    return Clock()


def make_step(timings, clock, *, data, communication, work):
    calls = SimpleNamespace(all_reduce=clock.passing(communication))
    time_calls(calls, ["all_reduce"], timings.communication)
    with timings.of("data"):
        clock.now += data
    clock.now += work
    calls.all_reduce()
    timings.end_step()


def test_a_step_is_data_communication_and_work(clock):
    timings = Timings(clock=clock)
    make_step(timings, clock, data=1, communication=2, work=4)
    make_step(timings, clock, data=8, communication=16, work=32)
    assert timings.samples() == {"step": [7, 56], "data": [1, 8], "communication": [2, 16], "work": [4, 32]}


@pytest.mark.parametrize("pause", [Timings.restart, Timings.restart_step])
def test_messages_between_two_steps_belong_to_neither(clock, pause):
    """A validation sends messages: counted in the next step, they left less than nothing for its own work."""
    timings = Timings(clock=clock)
    make_step(timings, clock, data=1, communication=2, work=4)
    calls = SimpleNamespace(all_gather=clock.passing(1000))
    time_calls(calls, ["all_gather"], timings.communication)
    calls.all_gather()
    pause(timings)
    make_step(timings, clock, data=8, communication=16, work=32)
    last = {name: seconds[-1] for name, seconds in timings.samples().items()}
    assert last == {"step": 56, "data": 8, "communication": 16, "work": 32}


def test_micro_batches_of_one_step_add_up_even_if_one_fails(clock):
    timings = Timings(clock=clock)
    with timings.of("data"):
        clock.now += 1
    with pytest.raises(OSError), timings.of("data"):
        clock.now += 2
        raise OSError
    timings.end_step()
    assert timings.samples()["data"] == [3]


def test_a_row_has_the_quantiles_of_its_window_only(clock):
    timings = Timings(clock=clock)
    draw = np.random.default_rng(0)
    for _ in range(2):
        spent = {part: draw.uniform(0, 9, 50) for part in ("data", "communication", "work")}
        for data, communication, work in zip(*spent.values(), strict=True):
            make_step(timings, clock, data=data, communication=communication, work=work)
        spent = {"step": sum(spent.values()), **spent}
        expected = [np.quantile(spent[name], at) for name in NAMES for at in (0.5, 0.95, 1)]
        assert timings.row().tolist() == pytest.approx(expected, rel=1e-9)  # differences of sums of seconds
        clock.now += 1000  # the time between two windows belongs to neither
        timings.restart()


def test_a_window_without_a_step_has_a_row_too(clock):
    assert Timings(clock=clock).row().tolist() == [0.0] * 12


def test_only_the_newest_steps_are_kept(clock):
    timings = Timings(clock=clock)
    for step in range(KEPT_STEPS + 10):
        make_step(timings, clock, data=step, communication=step, work=0)
    samples = timings.samples()
    assert samples["data"] == samples["communication"] == list(range(10, KEPT_STEPS + 10))


def test_the_table_has_a_list_over_ranks_for_each_quantile():
    found = seconds_by_rank(torch.arange(24.0).reshape(2, 12))
    assert list(found)[:4] == ["step_p50", "step_p95", "step_max", "data_p50"]
    assert found["step_p50"] == [0, 12]
    assert found["work_max"] == [11, 23]


class TestStragglers:
    def of(self, data, work, step=1.0, factor=1.5):
        found = stragglers({"data_p50": data, "work_p50": work, "step_p50": [step] * len(data)}, factor)
        return [str(one) for one in found]

    def test_are_named_if_their_data_is_slow(self):
        assert self.of([0.1, 0.1, 0.4, 0.1], [0.5] * 4) == [
            "rank 2 takes 400 ms a step for waiting for data, the others 100"
        ]

    def test_are_named_if_their_work_is_slow(self):
        assert self.of([0.1] * 3, [0.8, 0.5, 0.5]) == [
            "rank 0 takes 800 ms a step for its own work, the others 500"
        ]

    def test_are_found_among_two_ranks(self):
        assert "rank 1" in self.of([0.1, 0.1], [0.3, 0.5])[0]

    def test_are_not_named_within_the_factor(self):
        assert self.of([0.1, 0.1], [0.5, 0.74]) == []
        assert "rank 1" in self.of([0.1, 0.1], [0.5, 0.74], factor=1.4)[0]

    def test_are_not_named_for_a_small_part_of_a_step(self):
        assert self.of([0.001, 0.04], [0.5, 0.5]) == []

    def test_do_not_exist_on_one_rank(self):
        assert self.of([0.9], [0.1]) == []


class TestTimedCalls:
    def test_return_the_result_of_the_call(self, clock):
        calls = SimpleNamespace(all_reduce=lambda tensor, op=None: (tensor, op))
        time_calls(calls, ["all_reduce", "all_to_all_of_another_version"], HostStopwatch(clock))
        assert calls.all_reduce(1, op=2) == (1, 2)
        assert not hasattr(calls, "all_to_all_of_another_version")

    def test_count_the_wait_for_an_asynchronous_call_not_what_is_done_meanwhile(self, clock):
        stopwatch = HostStopwatch(clock)
        work = SimpleNamespace(wait=clock.passing(3, result="arrived"), is_completed=lambda: False)
        calls = SimpleNamespace(all_gather=clock.passing(1, result=work))
        time_calls(calls, ["all_gather"], stopwatch)
        handle = calls.all_gather(async_op=True)
        clock.now += 100
        assert handle.wait() == "arrived"
        assert handle.is_completed() is False
        stopwatch.end_step()
        assert stopwatch.seconds() == [4]

    def test_count_once_when_one_calls_another_or_is_timed_again(self, clock):
        stopwatch = HostStopwatch(clock)
        calls = SimpleNamespace(inner=clock.passing(1))
        calls.outer = lambda: calls.inner()
        time_calls(calls, ["inner", "outer"], HostStopwatch(clock))
        time_calls(calls, ["inner", "outer"], stopwatch)
        calls.outer()
        stopwatch.end_step()
        assert stopwatch.seconds() == [1]

    def test_work_on_torch_distributed(self, tmp_path):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
        try:
            calls, stopwatch = SimpleNamespace(all_reduce=dist.all_reduce), HostStopwatch()
            time_calls(calls, ["all_reduce"], stopwatch)
            handle = calls.all_reduce(torch.ones(3), async_op=True)
            assert isinstance(handle, TimedWork)
            handle.wait()
            assert handle.is_completed()
            stopwatch.end_step()
            assert stopwatch.seconds()[0] > 0
        finally:
            dist.destroy_process_group()


class Event:
    """A CUDA event whose stream is a number that the test moves on."""

    stream = 0.0

    def record(self):
        self.at, self.is_awaited = Event.stream, False

    def synchronize(self):
        self.is_awaited = True

    def elapsed_time(self, end):
        assert end.is_awaited
        return end.at - self.at  # milliseconds


def test_on_gpus_stream_time_is_measured_without_synchronisation_within_a_window():
    events = []

    def make_event():
        events.append(Event())
        return events[-1]

    def all_reduce(milliseconds):
        Event.stream += milliseconds

    stopwatch = CudaStopwatch(make_event)
    calls = SimpleNamespace(all_reduce=all_reduce)
    time_calls(calls, ["all_reduce"], stopwatch)
    calls.all_reduce(1000)
    stopwatch.restart_step()
    for milliseconds in (30, 50):
        calls.all_reduce(milliseconds)
        Event.stream += 1000
        calls.all_reduce(milliseconds)
        stopwatch.end_step()
    assert not any(event.is_awaited for event in events)
    assert stopwatch.seconds() == pytest.approx([0.06, 0.1])
