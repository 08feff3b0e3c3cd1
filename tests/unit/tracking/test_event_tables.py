"""The standing events as a table, and as CSV."""

import csv
import math
import stat

import pytest

from lediflow.errors import UserError
from lediflow.report import main
from lediflow.tracking.event_log import JsonlTracker
from lediflow.tracking.tables import distinct_events, read_rows, write_csv


def write(folder, *events):
    """A run folder with these events of (name, images seen, values)."""
    log = JsonlTracker(folder / "events.jsonl")
    for name, images_seen, values in events:
        log.record(name, images_seen, **values)
    log.close()
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_number_that_appears_late_leaves_a_rectangle(tmp_path):
    run = write(
        tmp_path / "flow",
        ("start", 0, {"ranks": 2}),
        ("train", 8, {"loss": 0.5, "loss_by_time": [1.0, None]}),
        ("train", 16, {"loss": 0.25, "late": {"a": 1}, "words": "x"}),
    )
    header, *rows = table(write_csv([run], tmp_path / "out.csv"))
    assert header[4:] == ["start/ranks", "train/loss", "train/loss_by_time/0", "train/late/a"]
    assert {len(row) for row in rows} == {len(header)}
    assert [row[4:] for row in rows] == [["2", "", "", ""], ["", "0.5", "1", ""], ["", "0.25", "", "1"]]
    assert [row[2:4] for row in rows] == [["start", "0"], ["train", "8"], ["train", "16"]]


def test_an_event_that_was_repeated_after_a_crash_is_one_row(tmp_path):
    """Killed at 150, continued at 100, twice."""
    events = [("train", place, {"loss": place / 1000}) for place in range(10, 151, 10)]
    again = [("train", place, {"loss": 1 + place / 1000}) for place in range(110, 151, 10)]
    run = write(tmp_path, *events, ("resume", 100, {}), *events[10:], ("resume", 100, {}), *again)
    rows = [row for row in read_rows(run) if row.event == "train"]
    assert [row.images_seen for row in rows] == list(range(10, 151, 10))
    assert [row.numbers["train/loss"] for row in rows] == [
        (place > 100) + place / 1000 for place in range(10, 151, 10)
    ]


def test_late_evaluations_stand_at_their_place_and_of_repeated_values_the_newest_counts():
    events = [
        {"event": "train", "images_seen": 8, "time": "a", "loss": 1.0, "mfu": 0.5},
        {"event": "train", "images_seen": 24, "time": "b", "loss": 2.0},
        {"event": "evaluation", "images_seen": 16, "time": "c", "mmd": 3.0},
        {"event": "train", "images_seen": 8, "time": "d", "loss": 4.0},
    ]
    assert [(event["images_seen"], event["event"]) for event in distinct_events(events)] == [
        (8, "train"), (16, "evaluation"), (24, "train"),
    ]  # fmt: skip
    assert distinct_events(events)[0] == events[0] | events[3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.1, 1e-30, 2**60, 3])
def test_numbers_are_read_back_as_they_were(tmp_path, value):
    run = write(tmp_path, ("train", 8, {"loss": value}))
    cell = table(write_csv([run], tmp_path / "out.csv"))[1][4]
    assert float(cell) == value or (math.isnan(value) and cell == "nan")


def test_several_runs_are_one_table_with_their_names(tmp_path):
    one = write(tmp_path / "a" / 'flow, "best"', ("train", 8, {"loss": 1.0}))
    two = write(tmp_path / "b" / "same", ("train", 8, {"other": 2.0}))
    three = write(tmp_path / "c" / "same", ("train", 8, {"loss": 3.0}))
    rows = table(write_csv([one, two, three], tmp_path / "out.csv"))
    assert rows[0][4:] == ["train/loss", "train/other"]
    assert [row[0] for row in rows[1:]] == ['flow, "best"', str(two), str(three)]
    assert [row[4:] for row in rows[1:]] == [["1", ""], ["", "2"], ["3", ""]]


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["report", *map(str, arguments)])
    main()


def test_the_command_writes_the_table_of_an_unfinished_run_and_replaces_only_tables(
    tmp_path, monkeypatch, capsys
):
    run = write(tmp_path / "run", ("train", 8, {"loss": 1.0}))
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, run, "--csv")
    call(monkeypatch, run, "--csv")
    assert len(table(tmp_path / "report.csv")) == 2
    (tmp_path / "notes.txt").write_text("run,away")
    for output, words in (("notes.txt", "is not a table of this command"), (".", "is a folder")):
        with pytest.raises(SystemExit):
            call(monkeypatch, run, "--csv", "--output", output)
        assert words in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "run,away"
    assert stat.S_ISREG((tmp_path / "report.csv").stat().st_mode)


def test_a_table_can_go_to_another_command(tmp_path, monkeypatch, capfd):
    run = write(tmp_path / "run", ("train", 8, {"loss": 1.0}))
    call(monkeypatch, run, "--csv", "--output", "/dev/stdout")
    said = capfd.readouterr()
    assert said.out.splitlines()[0] == "run,time,event,images_seen,train/loss"
    assert "table: /dev/stdout" in said.err


def test_a_folder_without_events_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no events; give the run folder of lediflow\.train"):
        write_csv([tmp_path], tmp_path / "out.csv")
