"""Goodput, with times computed by hand."""

from datetime import UTC, datetime

import pytest

from lediflow.cluster.slurm import Accounted
from lediflow.cluster.watching.goodput import (
    HeldTime,
    TrainingTime,
    held_by_accounts,
    held_by_events,
    held_by_notes,
    training_time,
)

EXACT = pytest.approx  # sums of a few quotients


def event(name, images_seen, seconds=0.0, **values):
    return {"time": time_of(seconds), "event": name, "images_seen": images_seen, **values}


def time_of(seconds):
    return datetime.fromtimestamp(1_772_000_000 + seconds, UTC).isoformat()


def trained(images_seen, speed, seconds=0.0):
    return event("train", images_seen, seconds, images_per_second=speed)


def note(kind, seconds, job="7", restart=0, task=None):
    return {
        "time": time_of(seconds), "event": kind, "job": job, "restart": restart, "array_task": task, "gpus": 4
    }  # fmt: skip


def test_images_count_once_at_the_speed_of_their_training():
    log = [event("start", 0), trained(100, 10.0), event("validation", 100), trained(300, 50.0)]
    assert training_time(log) == TrainingTime(EXACT(100 / 10 + 200 / 50), 0)


def test_training_after_the_checkpoint_is_lost_in_a_crash_and_training_before_it_counts():
    log = [
        event("start", 0), trained(100, 10.0), event("checkpoint", 150), trained(200, 20.0),
        event("resume", 150), trained(250, 25.0),
    ]  # fmt: skip
    assert training_time(log) == TrainingTime(EXACT(100 / 10 + 50 / 20 + 100 / 25), EXACT(50 / 20))


def test_a_run_that_restarts_before_its_first_checkpoint_has_lost_everything():
    log = [event("start", 0), trained(100, 10.0), event("start", 0), trained(50, 10.0)]
    assert training_time(log) == TrainingTime(EXACT(5), EXACT(10))


def test_images_saved_before_they_were_logged_count_at_the_mean_speed():
    log = [
        event("start", 0),
        trained(100, 10.0),
        event("checkpoint", 140),
        event("resume", 140),
        trained(240, 10.0),
    ]
    assert training_time(log) == TrainingTime(EXACT(24), 0)


def test_a_log_without_training_has_no_training_time():
    assert training_time([]) == training_time([event("start", 0)]) == TrainingTime(0, 0)


def test_time_held_is_what_slurm_accounts_for_all_attempts():
    accounts = [
        Accounted("7", "NODE_FAIL", 0, 0, 100, 4, "n1", "", ""),
        Accounted("7", "RUNNING", 0, 0, 50, 4, "n1", "", ""),
    ]
    assert held_by_accounts(accounts, gpus=0) == HeldTime(150, 600)
    without_gpus = [Accounted("7", "COMPLETED", 0, 0, 100, 0, "n1", "", "")]
    assert held_by_accounts(without_gpus, gpus=8) == HeldTime(100, 800)


def test_time_held_by_the_records_is_from_start_to_end():
    notes = [note("start", 0), note("end", 60), note("start", 100, restart=1), note("end", 130, restart=1)]
    assert held_by_notes(notes, signs=[]) == HeldTime(90, 360)


def test_the_time_of_a_lost_attempt_ends_with_its_last_heartbeat():
    notes = [note("start", 0), note("start", 100, restart=1), note("end", 130, restart=1)]
    assert held_by_notes(notes, signs=[]) == HeldTime(30, 120)
    signs = [1_772_000_000 + seconds for seconds in (10, 40, 110, 500)]
    assert held_by_notes(notes, signs) == HeldTime(40 + 30, 4 * 70)


def test_tasks_of_an_array_hold_machines_at_the_same_time():
    notes = [
        note("start", 0, "7_0", task=0),
        note("start", 5, "7_1", task=1),
        note("end", 65, "7_1", task=1),
        note("end", 60, "7_0", task=0),
    ]
    assert held_by_notes(notes, signs=[]) == HeldTime(120, 480)


def test_the_time_of_a_run_without_a_job_is_from_first_to_last_event_of_each_session():
    log = [
        event("start", 0, 0), trained(100, 10.0, 20), event("resume", 100, 100), trained(200, 10.0, 130),
        event("resume", 100, 135, why="too many steps in a row without a finite gradient"), trained(200, 10.0, 150),
    ]  # fmt: skip
    assert held_by_events(log).seconds == 20 + 50
    assert held_by_events(log, now=1_772_000_160).seconds == 20 + 60
    assert held_by_events([]).seconds == 0
