"""Rows for W&B: every standing event once, at a step that depends on the log alone."""

import math
from types import SimpleNamespace

import pytest
from harness.event_logs import EventLog, requeued_twice

from lediflow.tracking.event_log import standing_events
from lediflow.tracking.wandb.facts import Result
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import SentResult
from lediflow.tracking.wandb.rows import plan_rows, rows_of, summaries


def planned(log, results=(), first_step=0, skipped=()):
    """The plan for a log as it is now, with its rows."""
    index = IndexedLog(log.path)
    plan = plan_rows(index, list(results), first_step, skipped)
    return SimpleNamespace(**plan._asdict(), rows=[*rows_of(index, plan)])


def losses(rows):
    return [(row.images_seen, row.values["train/loss"]) for row in rows if "train/loss" in row.values]


def expected(path):
    return [
        (event["images_seen"], event["loss"]) for event in standing_events(path) if event["event"] == "train"
    ]


def test_after_two_crashes_every_standing_event_has_one_row(tmp_path):
    log = requeued_twice(tmp_path)
    rows = planned(log).rows
    assert losses(rows) == expected(log.path)
    assert [row.step for row in rows] == sorted({row.step for row in rows})


@pytest.mark.parametrize("first_step", range(35))
def test_the_rows_after_any_step_are_the_same_in_every_attempt(tmp_path, first_step):
    log = requeued_twice(tmp_path)
    whole = planned(log)
    rest = planned(log, [], first_step, whole.skipped)
    assert rest.rows == [row for row in whole.rows if row.step >= first_step]
    assert rest.next_step == max(first_step, len(IndexedLog(log.path)))


def test_what_was_sent_while_it_stood_is_not_sent_again_and_the_rest_is(tmp_path):
    log = EventLog(tmp_path)
    log.event("start", 0, ranks=1)
    log.train(*range(10, 160, 10))
    first = planned(log)
    log.event("resume", 100, ranks=1)
    log.train(*range(110, 180, 10), scale=50.0)
    second = planned(log, [], first.next_step, first.skipped)
    assert losses(second.rows) == [(160, 50 / 160), (170, 50 / 170)]
    assert (second.repeated, second.outdated) == (5, 5)
    places = [place for place, _ in losses(first.rows + second.rows)]
    assert places == sorted(set(places))


def test_a_point_that_was_discarded_before_anything_was_sent_comes_with_its_repetition(tmp_path):
    log = EventLog(tmp_path)
    log.train(*range(10, 160, 10))
    log.event("resume", 100)
    first = planned(log)
    log.train(*range(110, 160, 10))
    second = planned(log, [], first.next_step, first.skipped)
    assert losses(first.rows + second.rows) == expected(log.path)


def test_a_kill_in_the_middle_of_a_batch_loses_no_point(tmp_path):
    log = requeued_twice(tmp_path)
    log.event("train", 200, loss=7.0)  # of two at one place the newest counts
    whole = planned(log)
    for received in range(len(whole.rows) + 1):
        got = whole.rows[:received]
        rest = planned(log, [], got[-1].step + 1 if got else 0, whole.skipped)
        assert got + rest.rows == whole.rows


def test_late_results_have_the_newest_steps_and_their_own_places(tmp_path):
    log = requeued_twice(tmp_path)
    log.event("evaluation", 50, midpoint_2={"mmd_unbiased": 3.0})
    seen = len(IndexedLog(log.path))
    results = [(SentResult(seen, "results/results.json", "a"), Result(200, {"evaluation/euler_1/nfe": 1.0}))]
    first = planned(log, results)
    assert [(row.step, row.images_seen) for row in first.rows[-2:]] == [(seen - 1, 50), (seen, 200)]
    log.train(210)
    (row,) = planned(log, results, first.next_step, first.skipped).rows
    assert (row.step, row.images_seen) == (seen + 1, 210)


def test_elapsed_time_is_training_time_and_never_falls(tmp_path):
    log = EventLog(tmp_path)
    log.event("start", 0, ranks=1)
    log.train(10, 20)
    log.minutes -= 60  # the clock is set back by an hour
    log.train(30, 40)
    log.minutes += 180  # in the queue
    log.event("resume", 40, ranks=1)
    log.train(50)
    log.minutes += 5000
    log.event("evaluation", 50, midpoint_2={"mmd_unbiased": 3.0})  # by another process
    rows = planned(log).rows
    assert [row.values["elapsed_seconds"] / 60 for row in rows] == [0, 1, 2, 2, 3, 3, 4, 4]
    assert [row.timestamp for row in rows] == sorted(row.timestamp for row in rows)


def test_summaries_are_those_of_what_stands(tmp_path):
    log = requeued_twice(tmp_path)
    log.event("train", 210, loss="nan")
    log.event("validation", 50, loss="inf")
    found = summaries(IndexedLog(log.path), [Result(200, {"evaluation/euler_1/nfe": 1.0})])
    assert found["train/loss"] == {"min": 1 / 200, "max": 1 / 10, "last": "NaN"}
    assert found["validation/loss"] == {"min": "NaN", "max": "NaN", "last": "Infinity"}
    assert found["evaluation/euler_1/nfe"]["last"] == 1.0
    assert found["images_seen"] == 210
    assert all(math.isfinite(value) for value in found["train/loss"].values() if not isinstance(value, str))


def test_pictures_and_alerts_belong_to_a_row(tmp_path):
    log = EventLog(tmp_path)
    about = {"file": "pictures/000000000064/samples.png", "sha256": "ab", "caption": "inf"}
    log.event("pictures", 64, pictures={"samples": about}, seconds=0.5)
    log.event("held_out_turned", 64, rise=0.1, message="held-out loss was lowest, ...")
    pictures, alert = planned(log).rows
    assert pictures.pictures["pictures"] == {"samples": about}
    assert set(pictures.values) == {"pictures/seconds", "elapsed_seconds"}
    assert alert.alert == ("held-out loss has turned", "held-out loss was lowest, ...")
