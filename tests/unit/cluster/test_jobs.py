"""The record and the attempt log of a job: damaged lines are skipped, a damaged record is refused by name."""

import json

import pytest

from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.errors import UserError


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty"),
        ('{"name": "a', "is not whole, or no JSON"),
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
