"""Logs are shown complete, and followed to the end of the job."""

import io

from harness.job_folders import job, trained_by_hand

from lediflow.cluster.watching.logs import at_most_every, follow


def test_output_between_the_last_poll_and_the_end_is_shown(tmp_path):
    log = tmp_path / "7.log"
    log.write_text("first\n")
    out, looks = io.BytesIO(), iter([False, True])

    def end_after_two_looks():
        with log.open("a") as file:
            file.write("more\n")
        return next(looks)

    follow(lambda: log, out, end_after_two_looks, every_seconds=0)
    assert out.getvalue() == b"first\nmore\nmore\n"


def test_a_missing_log_is_waited_for_and_a_newer_one_follows_it(tmp_path):
    out = io.BytesIO()
    names = iter([None, "7-0-rank1.log", "7-1-rank1.log"])

    def look():
        name = next(names, None)
        if name:
            (tmp_path / name).write_text(f"{name}\n")
        return name is None and len([*tmp_path.iterdir()]) == 2

    follow(lambda: max(tmp_path.iterdir(), default=None), out, look, every_seconds=0)
    assert out.getvalue() == b"7-0-rank1.log\n7-1-rank1.log\n"


def test_the_end_of_a_job_without_output_ends_the_waiting(tmp_path):
    out = io.BytesIO()
    follow(lambda: tmp_path / "none.log", out, lambda: True, every_seconds=0)
    assert out.getvalue() == b""


def test_the_controller_is_queried_at_most_once_per_interval():
    times, asked = iter([0, 0, 3, 6, 6]), []
    answer = at_most_every(lambda: not asked.append(1), seconds=5, clock=lambda: next(times))
    assert [answer(), answer(), answer()] == [True, False, True]
    assert len(asked) == 2


# --- the command


def test_a_log_is_followed_until_the_job_has_left_the_queue(slurm, runs, run_status):
    (job(runs, "demo").log / "7.log").write_text("a word\n")
    assert run_status("logs", "demo", "--follow") == (0, "a word\n", "")


def test_a_run_that_was_never_queued_has_no_log(slurm, runs, run_status):
    trained_by_hand(runs, "hand")
    code, _, err = run_status("logs", "hand")
    assert code == 2
    assert f"{runs}/hand/events.jsonl has its events" in err


def test_the_log_of_another_rank_is_from_its_last_attempt(slurm, runs, run_status):
    log = job(runs, "demo").log
    for restart in (2, 10, 9):
        (log / f"7-{restart}-rank3.log").write_text(f"attempt {restart}\n")
    assert run_status("logs", "demo", "--rank=3")[1] == "attempt 10\n"
    (log / "7-10-rank1.log").touch()
    code, _, err = run_status("logs", "demo", "--rank=1")
    assert code == 2
    assert "rank 1 of demo has no output; ranks with output: 3" in err


def test_a_pending_job_has_no_output_yet(slurm, runs, run_status):
    job(runs, "demo")
    slurm("squeue", "7|PENDING|Priority||demo|0|\n")
    code, _, err = run_status("logs", "demo")
    assert code == 2
    assert "has no output yet: pending: waits for its turn" in err


def test_the_log_of_an_array_needs_a_task(slurm, runs, run_status):
    folder = job(runs, "encode", array=2)
    (folder.log / "7_1.log").write_text("one\n")
    assert "choose one: --task=0 ... --task=1" in run_status("logs", "encode")[2]
    assert run_status("logs", "encode", "--task=1")[1] == run_status("logs", "7_1")[1] == "one\n"
