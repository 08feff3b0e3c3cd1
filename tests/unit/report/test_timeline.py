"""Elapsed time, and what it went into, from logs whose times are chosen."""

import itertools

import pytest
from harness.job_folders import ended, job
from harness.run_logs import windows, write_events, write_run

from lediflow.cluster.watching.goodput import training_time
from lediflow.report.collect import report_data
from lediflow.report.history import CELLS, history_variables, ticks
from lediflow.report.run_log import read_log
from lediflow.report.run_table import run_row, run_timeline
from lediflow.report.runs import read_run
from lediflow.report.timeline import LOST, OVERHEAD, PICTURES, TRAINING, VALIDATION, WAITING, timeline
from lediflow.tracking.event_log import read_events

HOUR = 3600


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [
        (0.0, [0]),
        (0.4, [0, 0.4]),
        (21.0, [0, 5, 10, 15, 21]),
        (775.0, [0, 300, 600, 775]),
        (3 * HOUR, [0, HOUR, 2 * HOUR, 3 * HOUR]),
    ],
)
def test_ticks_of_the_bar_are_round_and_its_end(elapsed, expected):
    assert ticks(elapsed) == expected


def history(path, entries):
    return timeline("run", read_log(write_events(path / "events.jsonl", entries)).history)


def test_the_time_until_an_event_belongs_to_what_it_reports(tmp_path):
    found = history(
        tmp_path,
        [
            (0, "start", 0, {"ranks": 4}),
            (5, "prior_width", 0, {}),
            *windows(2, since=25),  # 20 s of which are loading and compiling
            (52, "validation", 200, {"loss": 1.0}),
            (55, "pictures", 200, {"seconds": 3.0}),
            (56, "checkpoint", 200, {"seconds": 1.0}),
        ],
    )
    assert found.elapsed == 56
    assert found.seconds == {
        TRAINING: 20, VALIDATION: 7, PICTURES: 3, OVERHEAD: 5 + 20 + 1, LOST: 0, WAITING: 0,
    }  # fmt: skip
    assert found.goodput == pytest.approx(20 / 56)
    assert [(stretch.kind, stretch.end - stretch.start) for stretch in found.stretches] == [
        (OVERHEAD, 25), (TRAINING, 20), (VALIDATION, 7), (PICTURES, 3), (OVERHEAD, 1),
    ]  # fmt: skip


def test_a_clock_set_back_by_an_hour_and_three_hours_in_the_queue(tmp_path):
    """Elapsed time never falls, and waiting is not training."""
    later = 3 * HOUR + 30 - HOUR
    found = history(
        tmp_path,
        [
            (0, "start", 0, {}),
            *windows(2),
            (30 - HOUR, "train", 300, {"images_per_second": 10.0}),
            (30 - HOUR, "checkpoint", 300, {}),
            (later, "resume", 300, {"why": "start"}),
            *windows(2, since=later, seen=300),
        ],
    )
    moments = list(itertools.chain.from_iterable((session.start, session.end) for session in found.sessions))
    assert moments == sorted(moments) == [0, 30, 30 + 3 * HOUR, 50 + 3 * HOUR]
    assert (found.seconds[TRAINING], found.seconds[WAITING]) == (50, 3 * HOUR)
    assert found.elapsed == sum(found.seconds.values()) == 3 * HOUR + 50
    assert found.goodput == 1.0


def test_training_beyond_where_a_run_resumed_is_lost_as_in_the_table_of_jobs(tmp_path):
    entries = [
        (0, "start", 0, {}),
        *windows(4),
        (100, "resume", 250, {"why": "start"}),
        *windows(3, since=100, seen=250),
        (140, "resume", 400, {"why": "too many steps in a row without a finite gradient"}),
        *windows(2, since=140, seen=400),
    ]
    found = history(tmp_path, entries)
    known = training_time(read_events(tmp_path / "events.jsonl"))
    assert (found.seconds[TRAINING], found.seconds[LOST]) == pytest.approx((known.standing, known.withdrawn))
    assert known.withdrawn == pytest.approx(15 + 15)
    first, second = found.sessions
    assert (first.lost_images, first.to_images, second.returns) == (150, 400, 1)
    (view,) = history_variables([found])["histories"]
    assert view.sessions[1].ended == "last session; went back to a checkpoint by itself: 1"
    lost = [(stretch.start, stretch.end) for stretch in found.stretches if stretch.kind == LOST]
    assert lost == [(25, 40), (115, 130)]


def test_a_start_without_a_checkpoint_loses_everything_before(tmp_path):
    found = history(tmp_path, [(0, "start", 0, {}), *windows(2), (60, "start", 0, {}), *windows(1, since=60)])
    assert (found.seconds[TRAINING], found.seconds[LOST], found.seconds[WAITING]) == (10, 20, 40)


def test_a_late_evaluation_is_no_part_of_the_training(tmp_path):
    late = (100_000, "evaluation", 100, {"midpoint_4": {"mmd": 0.5}})
    found = history(tmp_path, [(0, "start", 0, {}), *windows(2), late])
    assert (found.elapsed, found.seconds[TRAINING]) == (20, 20)


def test_checkpoints_faults_and_notes_are_marked_where_they_happened(tmp_path):
    found = history(
        tmp_path,
        [
            (0, "start", 0, {}),
            (5, "bad_step", 50, {"norm": "nan"}),
            (10, "checkpoint", 100, {}),
            (20, "checkpoint_failed", 200, {"reason": "disk full"}),
            (30, "stall", 200, {"sentence": "rank 1 hangs", "ranks": []}),
            (40, "options", 200, {"changed": ["train.images: 1, now 2", "hub.token: hf_secret0, now null"]}),
        ],
    )
    texts = {mark.elapsed: (mark.kind, mark.text) for mark in found.marks}
    assert texts[10] == ("checkpoint", "checkpoint")
    assert texts[20] == ("fault", "checkpoint that could not be written: disk full")
    assert texts[30] == ("fault", "stall: rank 1 hangs")
    assert texts[40] == ("note", "options changed: train.images: 1, now 2; hub.token: ***, now null")
    assert [mark.kind for mark in found.marks].count("fault") == 3


def test_the_bar_of_a_run_of_any_length_has_a_bounded_number_of_parts(tmp_path):
    events = [(0, "start", 0, {})]
    for number in range(1, 2000):
        events += [
            (10 * number, "train", 100 * number, {"images_per_second": 20.0}),
            (10 * number + 4, "validation", 100 * number, {}),
        ]
        events += [(10 * number + 4, "checkpoint", 100 * number, {})] * (number % 3 == 0)
    (view,) = history_variables([history(tmp_path, events)])["histories"]
    assert len(view.parts) <= CELLS and len(view.dots) <= 300
    assert sum(part.width for part in view.parts) == pytest.approx(100, abs=0.5)


def test_the_supervisors_reason_is_in_the_row_of_its_session(tmp_path):
    folder = job(tmp_path, "demo.flow")
    write_run(tmp_path / "demo" / "flow", [(0, "start", 0, {}), *windows(2)])
    folder.write(
        folder.read().__class__(name="demo.flow", command=["train"], run=str(tmp_path / "demo" / "flow"))
    )
    ended(folder, "requeue", "the wall time")
    run = read_run(tmp_path / "demo" / "flow")
    assert [session.ended for session in run_timeline(run).sessions] == ["requeue: the wall time"]


def test_a_session_says_where_it_ran_with_which_code_and_command(tmp_path):
    facts = {
        "host": "n1",
        "commit": "c" * 40 + "-dirty",
        "command": "python -m lediflow.train hub.token=hf_secret0",
    }
    entries = [
        (0, "start", 0, {"job": "18", "restart": 0, **facts}),
        *windows(2),
        (60, "resume", 200, {"job": "18", "restart": 1, "host": "n2", "commit": "c" * 40}),
    ]
    run = read_run(write_run(tmp_path / "flow", entries))
    (view,) = history_variables([run_timeline(run)])["histories"]
    assert [(row.where, row.commit) for row in view.sessions] == [
        ("n1, job 18", "ccccccccc with changes"), ("n2, job 18, requeue 1", "ccccccccc"),
    ]  # fmt: skip
    again = read_run(write_run(tmp_path / "again", entries[:3]))
    data = report_data([again], title="", lead="", commands=[])
    assert [command.command for command in data.commands] == ["python -m lediflow.train hub.token=***"]


def test_a_run_has_a_row_of_its_main_numbers(tmp_path):
    events = [(0, "start", 0, {}), *windows(2), (30, "validation", 200, {"averaged_loss": 0.25})]
    run = read_run(write_run(tmp_path / "a", events))
    row = run_row(run, run_timeline(run))
    assert row.cells["images"] == "200" and row.cells["training"] == "20 s"
    assert (row.cells["loss"], row.cells["held-out loss"], row.cells["lowest at"]) == ("0.5", "0.25", "200")
    assert row.cells["goodput"] == "67%"


def test_an_empty_log_has_no_time_line(tmp_path):
    run = read_run(write_run(tmp_path / "a", []))
    assert (
        run_timeline(run).sessions == [] and run_row(run, run_timeline(run)).cells["goodput"] == "\N{EN DASH}"
    )
