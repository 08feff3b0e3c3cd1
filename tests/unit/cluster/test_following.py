"""Logs are shown whole, as they grow, to their end."""

import io

import pytest

from lediflow.cluster.watching.following import follow, seldom
from lediflow.cluster.watching.task_ids import expanded, is_of


def test_what_comes_between_the_last_look_and_the_end_is_shown(tmp_path):
    log = tmp_path / "7.log"
    log.write_text("first\n")
    out, looks = io.BytesIO(), iter([False, True])

    def end_after_two_looks():
        with log.open("a") as file:
            file.write("more\n")
        return next(looks)

    follow(lambda: log, out, end_after_two_looks, every_seconds=0)
    assert out.getvalue() == b"first\nmore\nmore\n"


def test_a_log_that_is_not_there_yet_is_waited_for_and_a_newer_one_follows_it(tmp_path):
    out = io.BytesIO()
    stories = iter([None, "7-0-rank1.log", "7-1-rank1.log"])

    def look():
        name = next(stories, None)
        if name:
            (tmp_path / name).write_text(f"{name}\n")
        return name is None and len([*tmp_path.iterdir()]) == 2

    follow(lambda: max(tmp_path.iterdir(), default=None), out, look, every_seconds=0)
    assert out.getvalue() == b"7-0-rank1.log\n7-1-rank1.log\n"


def test_a_job_that_never_spoke_ends_the_waiting(tmp_path):
    out = io.BytesIO()
    follow(lambda: tmp_path / "none.log", out, lambda: True, every_seconds=0)
    assert out.getvalue() == b""


def test_the_controller_is_asked_seldom():
    times, asked = iter([0, 0, 3, 6, 6]), []
    answer = seldom(lambda: not asked.append(1), seconds=5, clock=lambda: next(times))
    assert [answer(), answer(), answer()] == [True, False, True]
    assert len(asked) == 2


@pytest.mark.parametrize(
    "entry, job, answer",
    [
        ("7", "7", True), ("7", "8", False), ("7_1", "7_1", True), ("7_1", "7", False), ("7", "7_1", False),
        ("7_[0-3,7%2]", "7_3", True), ("7_[0-3,7%2]", "7_4", False), ("7_[0-3,7%2]", "7", False),
        ("17_[0-3]", "7_1", False), ("7_[0-3,...]", "7_90", True),
    ],
)  # fmt: skip
def test_slurms_lines_are_told_to_belong_to_jobs_and_tasks(entry, job, answer):
    assert is_of(entry, job) is answer


def test_lists_of_tasks_are_written_out():
    assert expanded("[0-3,7%2]") == {0, 1, 2, 3, 7}
