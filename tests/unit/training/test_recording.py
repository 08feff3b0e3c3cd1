"""The events `train` (averages over unequal batches and ranks, speeds by a clock of our own) and `ranks`."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from harness.thread_ranks import on_thread_ranks

from lediflow.engine.timings import NAMES
from lediflow.stages.bins import by_time
from lediflow.stages.protocol import stage_loss
from lediflow.training.clock import Clock
from lediflow.training.recording import Pace, Recorder, Totals, Window
from lediflow.training.throughput import Throughput


class Events:
    """A tracker that keeps what it hears."""

    def __init__(self):
        self.heard = []

    def record(self, event, images_seen, **values):
        self.heard.append((event, images_seen, values))


class Seconds:
    """A clock that advances only when the test says so."""

    now = 100.0

    def __call__(self):
        return self.now

    def take(self, seconds, result=None):
        self.now += seconds
        return result


def result_of(losses, t):
    per_sample = torch.tensor(losses)
    return stage_loss(
        per_sample, {"double": 2 * per_sample.mean()}, {"loss_by_time": by_time(per_sample, torch.tensor(t))}
    )


BATCHES = [([1.0], [0.05]), ([2.0, 6.0, 4.0], [0.05, 0.95, 0.95]), ([7.0, 0.0], [0.5, 0.951])]


@pytest.mark.parametrize(
    "of_ranks", [[BATCHES], [BATCHES[:1], BATCHES[1:2], BATCHES[2:]]], ids=["one rank", "three ranks"]
)
def test_a_sample_counts_once_on_any_batch_and_rank(of_ranks):
    def work(engine):
        events = Events()
        window = Window(engine, Clock(100, 6), events)
        for batch in of_ranks[engine.ranks.rank]:
            window.add(result_of(*batch))
        window.clock.advance()
        window.record(gradient_norm=0.5)
        return events.heard

    for [(event, images_seen, values)] in on_thread_ranks(len(of_ranks), work):
        assert (event, images_seen, values["gradient_norm"]) == ("train", 6, 0.5)
        assert values["loss"] == pytest.approx(20 / 6)
        assert values["double"] == pytest.approx(40 / 6)
        empty = [None] * 4
        assert values["loss_by_time"] == [1.5, *empty, 7.0, None, None, None, pytest.approx(10 / 3)]


def figures(world_size=1, throughput=None, waits=(2.0,), corrupt=(0,)):
    """What a window of 10 s and 800 images says on the first rank, and the one of 5 s after it."""

    def work(engine):
        events, seconds, rank = Events(), Seconds(), engine.ranks.rank
        window = Window(engine, Clock(10_000, 400, images_seen=4000), events, throughput, seconds)
        seconds.take(300.0)  # while a checkpoint is loaded
        for step_seconds in (10.0, 5.0):
            for part in (waits[rank], 0.0):
                assert window.waited(lambda part=part: seconds.take(part, "batch")) == "batch"
                window.add(result_of([1.0] * (400 // world_size), [0.5] * (400 // world_size)))
                window.clock.advance()
            with window.paused():
                seconds.take(60.0)
            seconds.take(step_seconds - waits[rank])
            window.record(corrupt[rank])
        return [values for _, _, values in events.heard]

    return on_thread_ranks(world_size, work)[0]


def test_speeds_are_those_of_training_without_its_pauses_and_its_start():
    first, second = figures()
    assert (first["images_per_second"], first["data_wait_share"]) == (80.0, 0.2)
    assert (second["images_per_second"], second["data_wait_share"]) == (160.0, 0.4)


def recorded(steps, *, compiles):
    """The events of steps of 4 samples: the first takes 40 s after 1 s of waiting, further ones 2 s each."""

    def work(engine):
        engine.config, engine.time_communication = SimpleNamespace(compile=compiles), lambda stopwatch: None
        events, seconds = Events(), Seconds()
        recorder = Recorder(engine, Clock(10_000, 4), events)
        recorder.window.seconds = recorder.pace.timings.clock = seconds
        recorder.begin()
        for step in range(steps):
            recorder.waited(lambda step=step: seconds.take(0 if step else 1.0))
            recorder.add(result_of([1.0 + step] * 4, [0.5] * 4))
            seconds.take(2.0 if step else 40.0)
            recorder.clock.advance()
            recorder.end_step()
        recorder.record(0)
        return {event: values for event, _, values in events.heard}

    return on_thread_ranks(1, work)[0]


def test_compiling_is_reported_and_not_part_of_the_speed(caplog):
    caplog.set_level(logging.INFO)
    events = recorded(6, compiles=True)
    assert events["compiled"] == {"seconds": 40.0}
    assert (events["train"]["images_per_second"], events["train"]["data_wait_share"]) == (2.0, 0.0)
    assert events["train"]["loss"] == 3.5  # the mean of all six steps
    assert caplog.messages == ["compiled in 40 s"]


def test_without_compiling_every_step_is_part_of_the_speed():
    events = recorded(6, compiles=False)
    assert "compiled" not in events
    assert events["train"]["images_per_second"] == pytest.approx(24 / 51)


def test_a_window_with_no_other_step_has_the_speed_of_the_compiling_one():
    assert recorded(1, compiles=True)["train"]["images_per_second"] == pytest.approx(4 / 41)


def test_returning_to_a_checkpoint_keeps_the_count_of_trained_images():
    def work(engine):
        events, seconds = Events(), Seconds()
        window = Window(engine, Clock(10_000, 4, images_seen=400), events, None, seconds)
        window.waited(lambda: seconds.take(2.0))
        window.add(result_of([1.0] * 4, [0.5] * 4))
        window.clock.images_seen = 100
        window.record()
        return events.heard

    [[(_, images_seen, values)]] = on_thread_ranks(1, work)
    assert (images_seen, values["images_per_second"]) == (100, 2.0)


def test_a_restarted_window_does_not_count_earlier_steps_or_the_pause():
    def work(engine):
        events, seconds = Events(), Seconds()
        window = Window(engine, Clock(10_000, 4, images_seen=100), events, None, seconds)
        window.waited(lambda: seconds.take(7.0))
        window.add(result_of([torch.nan] * 4, [0.05] * 4))
        window.restart()
        seconds.take(300.0)  # while a checkpoint is loaded
        window.waited(lambda: seconds.take(2.0))
        window.add(result_of([1.0] * 4, [0.5] * 4))
        window.record()
        return events.heard

    [[(_, _, values)]] = on_thread_ranks(1, work)
    assert (values["loss"], values["images_per_second"], values["data_wait_share"]) == (1.0, 2.0, 1.0)
    assert values["loss_by_time"] == [None] * 5 + [1.0] + [None] * 4


def test_ranks_share_the_images_and_each_may_wait_and_meet_corrupt_samples():
    throughput = Throughput(flops_per_image=1e12, peak_tflops=200.0)
    first, _ = figures(2, throughput, waits=(2.0, 1.0), corrupt=(1, 2))
    assert first["data_wait_share"] == pytest.approx(0.15)
    assert first["corrupt_samples"] == 3
    assert (first["tflops"], first["mfu"]) == (40.0, 0.2)  # 80 images of a TFLOP, by two devices


def test_without_a_known_cost_no_utilisation_is_shown():
    first, _ = figures()
    assert not first.keys() & {"tflops", "mfu"}


def test_peak_memory_is_that_of_the_process_in_gib():
    first, _ = figures()
    status = Path("/proc/self/status").read_text()
    kib = int(status.partition("VmHWM:")[2].split()[0])
    assert first["peak_memory_gib"] == pytest.approx(kib / 2**20, rel=0.2)  # the process may have grown since


def test_adding_reads_nothing_back_from_the_device():
    losses = torch.ones(4, device="meta")  # reading a value of such a tensor raises an error
    totals = Totals()
    for _ in range(2):
        totals.add(stage_loss(losses, {"metric": losses.mean()}, {"loss_by_time": by_time(losses, losses)}))
    assert totals.sums.shape == (3 + 2 * 10,)
    with pytest.raises(RuntimeError):
        float(totals.sums[0])


def test_an_uncounted_batch_changes_nothing_even_if_it_is_nan():
    totals = Totals()
    totals.add(result_of([torch.nan], [0.5]), is_counted=False)
    totals.add(result_of([3.0], [0.25]))
    means = totals.means(totals.with_extra([]))
    assert (means["loss"], means["double"]) == (3.0, 6.0)
    assert means["loss_by_time"] == [None, None, 3.0, *[None] * 7]


FAST, SLOW = 0.1, 0.9


class Gathering:
    """An engine of two ranks whose timings are given."""

    def __init__(self, is_first=True):
        self.ranks, self.device, self.second = SimpleNamespace(is_first=is_first), torch.device("cpu"), FAST
        self.group = SimpleNamespace(stack=self.stack)

    def time_communication(self, stopwatch):
        """Nothing is sent."""

    def stack(self, row):
        rows = torch.full((2, len(row)), FAST)
        rows[1, [NAMES.index("work") * 3]] = self.second
        rows[:, [NAMES.index("step") * 3]] = 1.0
        return rows


@pytest.fixture
def reported(caplog):
    """Records with these seconds of the second rank -> what is said."""

    def after(seconds, is_first=True):
        engine = Gathering(is_first)
        pace = Pace(engine, SimpleNamespace(record=lambda *event, **values: None))
        caplog.set_level(logging.WARNING)
        for number, engine.second in enumerate(seconds):
            pace.end_step()
            pace.record(number)
        return [record.getMessage() for record in caplog.records]

    return after


def test_a_rank_that_stays_slow_is_named_once(reported):
    assert reported([SLOW] * 6) == [
        "at 2 images: rank 1 takes 900 ms a step for its own work, the others 100"
    ]


def test_a_rank_that_was_slow_once_is_not_reported(reported):
    assert reported([SLOW, SLOW, FAST] * 3) == []


def test_a_rank_that_is_slow_again_later_is_named_again(reported):
    assert len(reported([SLOW] * 3 + [FAST] + [SLOW] * 3)) == 2


def test_only_rank_0_logs_slow_ranks(reported):
    assert reported([SLOW] * 6, is_first=False) == []
