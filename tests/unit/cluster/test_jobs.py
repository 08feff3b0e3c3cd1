"""The record and the attempt log of a job: damaged lines are skipped, a damaged record is refused by name."""

import json

import pytest

from lediflow.cluster.jobs import JobFolder, JobRecord, newest_attempt, newest_end
from lediflow.errors import UserError


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty"),
        ('{"name": "a', "is incomplete, or not JSON"),
        ("[1]", "where values by name belong"),
        ("{}", "JobRecord without name, command, run"),
        (
            '{"name": "a", "command": "lediflow.train", "run": "/r"}',
            r"job\.command: found 'lediflow.train'; give a list",
        ),
        ('{"name": "a", "command": [], "run": "/r"}', r"job\.command: it is empty"),
        ('{"name": "a", "command": ["x"], "run": 3}', r"job\.run: found 3, not text"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(content, fault, tmp_path):
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(UserError, match=rf"job\.json.*{fault}.*; remove the folder and submit again"):
        JobFolder(tmp_path).read()


def test_a_record_that_was_read_can_be_written_again(tmp_path):
    slurm = {"nodes": 2, "options": {"qos": "high"}}
    record = JobRecord(name="a", command=["lediflow.train"], run="/r", job_ids=["7"], slurm=slurm)
    for _ in range(2):  # what was read is written, as a resumed job is
        JobFolder(tmp_path).write(record)
        found = JobFolder(tmp_path).read()
        assert found == record
        record = found


@pytest.mark.parametrize(
    "line",
    [
        '{"time": "2026-01-01T00:00:00+00:00", "event": "st',
        "[" * 100_000,
        "[]",
        json.dumps({"time": "yesterday", "event": "start", "job": "7"}),
        json.dumps({"event": "start", "job": "7"}),
        json.dumps({"time": "2026-01-01T00:00:00+00:00", "event": "start", "job": 7}),
        json.dumps({"time": "2026-01-01T00:00:00+00:00", "event": "end", "job": "7"}),
    ],
    ids=["cut", "nested", "list", "time", "no time", "job", "end without a decision"],
)
def test_a_damaged_line_of_the_attempt_log_is_skipped(line, tmp_path):
    job = JobFolder(tmp_path)
    job.note("start", job="7", restart=1, array_task=None, gpus=4)
    with job.attempts_file.open("a") as file:
        file.write(line + "\n")
    (note,) = job.attempts()
    assert (note["job"], note["restart"], note["gpus"]) == ("7", 1, 4)


def test_the_newest_end_is_that_of_the_newest_attempt_under_an_id(tmp_path):
    job = JobFolder(tmp_path)
    job.note("end", job="6", restart=5, decision="done")  # an earlier submission
    assert newest_end(job.attempts("7")) is None
    job.note("start", job="7", restart=0)
    job.note("start", job="7", restart=1)
    job.note("end", job="7", restart=0, decision="terminated")  # superseded
    assert newest_end(job.attempts("7")) is None
    job.note("end", job="7", restart=1, decision="failed")
    job.note("end", job="7", restart=0, decision="terminated")
    assert newest_end(job.attempts("7"))["decision"] == "failed"
    assert [line["event"] for line in newest_attempt(job.attempts("7"))] == ["start", "end"]
    assert len(job.attempts()) == 6


# --- a folder of runs that was moved


def submitted(runs, **values):
    """A job in RUNS with a copy of the code there."""
    snapshot = runs / "jobs/.code/abc"
    command = ["lediflow.train", "seed=1", *values.pop("options", []), f"run={runs}/demo"]
    record = JobRecord(name="demo", command=command, run=f"{runs}/demo", snapshot=str(snapshot), **values)
    JobFolder(runs / "jobs/demo").write(record)
    return record


def read_after_move(tmp_path, **values):
    submitted(tmp_path / "runs", **values)
    (tmp_path / "runs").rename(tmp_path / "moved to")
    return JobFolder(tmp_path / "moved to/jobs/demo").read()


def test_the_paths_of_a_record_follow_a_moved_folder_of_runs(tmp_path):
    old, new = tmp_path / "runs", tmp_path / "moved to"
    options = [
        f"parent={old}/auxiliary", f"images=[{old}/a.png,'{old}/b.png']", f"data.path={old}-of-others/x", "parent=null"
    ]  # fmt: skip
    record = read_after_move(tmp_path, folder="/home/me", options=options)
    assert record.command[2:] == [
        f"parent={new}/auxiliary", f"images=[{new}/a.png,'{new}/b.png']", options[2], options[3], f"run={new}/demo"
    ]  # fmt: skip
    assert (record.run, record.snapshot) == (f"{new}/demo", f"{new}/jobs/.code/abc")
    assert record.folder == "/home/me"


def test_relative_paths_into_a_moved_folder_of_runs_follow_it(tmp_path):
    options = ["parent=runs/auxiliary", "paths.runs=runs", "data.path=data", "name=runs"]
    record = read_after_move(tmp_path, folder=str(tmp_path), options=options)
    new = tmp_path / "moved to"
    assert record.command[2:6] == [
        f"parent={new}/auxiliary",
        f"paths.runs={new}",
        "data.path=data",
        "name=runs",
    ]


def test_relative_paths_from_inside_a_moved_folder_of_runs_stay(tmp_path):
    record = read_after_move(tmp_path, folder=f"{tmp_path}/runs/inside", options=["parent=../auxiliary"])
    assert (record.folder, record.command[2]) == (f"{tmp_path}/moved to/inside", "parent=../auxiliary")


def test_a_record_is_read_as_it_was_written_if_nothing_was_moved(tmp_path):
    record = submitted(tmp_path / "runs", folder=str(tmp_path), options=["parent=runs/auxiliary"])
    assert JobFolder(tmp_path / "runs/jobs/demo").read() == record


# --- a folder with foreign files


def test_a_record_is_not_written_into_a_folder_with_foreign_files(tmp_path):
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(UserError, match=r"is not empty \(found letters\).*choose another run folder"):
        JobFolder(tmp_path).write(JobRecord(name="a", command=["x"], run="/r"))
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_a_job_folder_that_cannot_be_made_is_refused_with_advice(tmp_path):
    (tmp_path / "jobs").touch()
    with pytest.raises(UserError, match=r"a file exists where a folder is needed"):
        JobFolder(tmp_path / "jobs/a").write(JobRecord(name="a", command=["x"], run="/r"))
