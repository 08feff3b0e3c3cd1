"""`lediflow.status` on jobs and runs, with stand-ins for SLURM's commands; tests/cluster has the real ones."""

import json
import os

import pytest

from lediflow import status
from lediflow.cluster.jobs import JobFolder, JobRecord, now
from lediflow.cluster.watching import cancelling
from lediflow.tracking.event_log import event_line

STAND_IN = """#!/bin/sh
echo "{name} $@" >>$CALLS
[ -e {answers}/{name} ] || {{ echo "{name}: error: no answer" >&2; exit 1; }}
cat {answers}/{name}
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """(command, what it prints) sets an answer; calls() are the commands that would have changed something."""
    commands, answers = tmp_path / "bin", tmp_path / "answers"
    commands.mkdir()
    answers.mkdir()
    for name in ("squeue", "sacct", "sbatch", "scancel"):
        (commands / name).write_text(STAND_IN.format(name=name, answers=answers))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def answer(name, text=""):
        (answers / name).write_text(text)

    def calls():
        lines = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return [line for line in lines if line.startswith(("sbatch", "scancel"))]

    answer.calls = calls
    for name in ("squeue", "sacct", "scancel"):
        answer(name)
    answer("sbatch", "90\n")
    return answer


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def said(runs, monkeypatch, capsys):
    """`lediflow.status words...` on these runs -> (exit status, stdout, stderr)."""

    def call(*words):
        place = ["--runs", str(runs)] if words and words[0] in status.ACTIONS else [str(runs)]
        monkeypatch.setattr("sys.argv", ["status", *words, *place])
        code = 0
        try:
            status.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def job(runs, name, job_id="7", **values):
    folder = JobFolder(runs / "jobs" / name)
    command = values.pop("command", ["lediflow.train", "experiment=demo"])
    folder.write(
        JobRecord(
            name=name, command=command, run=str(runs / name), job_ids=[job_id] if job_id else [], **values
        )
    )
    folder.log.mkdir()
    return folder


def started(folder, job_id="7", restart=0):
    folder.note("start", job=job_id, restart=restart, array_task=None, nodes=["n1"], ranks=4, gpus=4)


def ended(folder, decision, reason="a reason", job_id="7", restart=0):
    folder.note(
        "end", job=job_id, restart=restart, array_task=None, decision=decision, reason=reason, images=64
    )


def trained_by_hand(runs, name, images=64, total=128):
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"train:\n  images: {total}\n")
    lines = [event_line("start", 0, {"ranks": 1}), event_line("train", images, {"images_per_second": 32.0})]
    (folder / "events.jsonl").write_text("".join(lines))
    return folder


def leased(folder, is_given_back=False, **values):
    record = {
        "token": "t", "job": None, "restart": 0, "host": "n1", "machine": "another", "pid": 5, "interval": 5.0,
        "taken": 0.0, "renewed": 0.0, "is_given_back": is_given_back,
    }  # fmt: skip
    (folder / "lease.json").write_text(json.dumps(record | values))


def lines(out):
    return {line.split()[0]: line for line in out.splitlines()}


# --- the table


def test_jobs_and_runs_stand_in_one_table(slurm, runs, said):
    started(job(runs, "demo.flow"))
    slurm("squeue", "7|RUNNING|None|n[1-2]|demo.flow|0|\n")
    slurm("sacct", "7|RUNNING|0:0|3600|gres/gpu=4|n[1-2]|2026-01-01T10:00:00|Unknown\n")
    trained_by_hand(runs, "demo/flow-by-hand")
    code, out, err = said()
    assert (code, err) == (0, "")
    assert lines(out)["demo.flow"].split()[4] == "4.0"  # GPU hours
    assert "starting for 0 s on n[1-2]" in lines(out)["demo.flow"]
    assert " 50 %" in lines(out)["demo.flow-by-hand"]
    assert lines(out)["demo.flow-by-hand"].endswith("not finished; the same command goes on")


def test_a_running_run_says_how_fast_it_is_and_how_long_it_will_take(slurm, runs, said):
    folder = job(runs, "demo")
    started(folder)
    leased(trained_by_hand(runs, "demo", images=64, total=128), job="7")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")
    (row,) = json.loads(said("--json")[1])
    assert (row["images_per_second"], row["seconds_left"], row["training_seconds"]) == (32.0, 2.0, 2.0)
    assert row["kind"] == "running"


def test_goodput_is_training_over_held(slurm, runs, said):
    ended(folder := job(runs, "demo"), "done")
    started(folder)
    trained_by_hand(runs, "demo", images=64, total=64)  # 2 s at 32 images/s
    slurm("sacct", "7|NODE_FAIL|0:0|5|gres/gpu=4|n1|a|b\n7|COMPLETED|0:0|15|gres/gpu=4|n1|a|b\n")
    (row,) = json.loads(said("--json")[1])
    assert (row["held_seconds"], row["goodput"]) == (20, pytest.approx(0.1))


def test_without_jobs_slurm_is_not_asked(slurm, runs, said, tmp_path):
    trained_by_hand(runs, "demo")
    assert said()[0] == 0
    assert not (tmp_path / "calls").exists()


def test_a_cluster_without_accounting_is_told_once_and_the_notes_stand_in(slurm, runs, said, tmp_path):
    for name, job_id in (("a", "7"), ("b", "8")):
        ended(folder := job(runs, name, job_id), "failed", job_id=job_id)
        started(folder, job_id, restart=1)
        ended(folder, "done", job_id=job_id, restart=1)
    (tmp_path / "answers/sacct").unlink()
    code, out, err = said()
    assert code == 0
    assert err.count("note:") == 1
    assert "sacct: no answer" in err
    assert lines(out)["a"].endswith("done")


def test_a_machine_without_slurm_shows_what_the_folders_tell(runs, said, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    started(job(runs, "demo"))
    code, out, err = said()
    assert code == 0
    assert "squeue is not installed here" in err
    assert "SLURM does not answer" in out


def test_a_torn_record_hides_no_other_job(slurm, runs, said):
    job(runs, "whole")
    job(runs, "torn").record_file.write_text('{"name": "to')
    code, out, err = said()
    assert (code, [*lines(out)]) == (0, ["name", "whole"])
    assert "torn" in err


def test_tasks_of_an_array_are_looked_at_one_by_one(slurm, runs, said):
    folder = job(runs, "encode", command=["lediflow.encode"], array=4)
    started(folder, "7_0")
    ended(folder, "done", job_id="7_0")
    started(folder, "7_1")
    slurm("squeue", "7_1|RUNNING|None|n1|encode|0|\n7_[2-3%1]|PENDING|JobArrayTaskLimit||encode|0|\n")
    assert "tasks: 1 done, 2 pending, 1 running" in said()[1]


def test_a_folder_that_is_not_there_is_refused_with_what_to_give(runs, said):
    runs.rmdir()
    code, _, err = said()
    assert code == 2
    assert "give the one that holds the runs" in err


# --- names


@pytest.mark.parametrize("asked", ["demo.flow", "7", "7_2", "{runs}/demo.flow", "{runs}/jobs/demo.flow"])
def test_a_job_is_found_by_name_id_or_folder(slurm, runs, said, asked):
    (job(runs, "demo.flow").log / "7.log").write_text("a word\n")
    assert said("logs", asked.format(runs=runs)) == (0, "a word\n", "")


def test_a_mistyped_name_gets_the_nearest(slurm, runs, said):
    job(runs, "demo.flow-seed0")
    trained_by_hand(runs, "other")
    code, _, err = said("logs", "demo/flow-sed0")
    assert code == 2
    assert "nearest names: demo.flow-seed0" in err


# --- logs


def test_a_log_is_followed_until_the_job_has_left_the_queue(slurm, runs, said):
    (job(runs, "demo").log / "7.log").write_text("a word\n")
    assert said("logs", "demo", "--follow") == (0, "a word\n", "")


def test_a_run_that_was_never_queued_has_no_log(slurm, runs, said):
    trained_by_hand(runs, "hand")
    code, _, err = said("logs", "hand")
    assert code == 2
    assert f"{runs}/hand/events.jsonl has what happened" in err


def test_the_log_of_another_rank_is_that_of_its_last_start(slurm, runs, said):
    log = job(runs, "demo").log
    for restart in (2, 10, 9):
        (log / f"7-{restart}-rank3.log").write_text(f"start {restart}\n")
    assert said("logs", "demo", "--rank=3")[1] == "start 10\n"
    (log / "7-10-rank1.log").touch()
    code, _, err = said("logs", "demo", "--rank=1")
    assert code == 2
    assert "rank 1 of demo said nothing; ranks that did: 3" in err


def test_a_job_that_waits_has_said_nothing_yet(slurm, runs, said):
    job(runs, "demo")
    slurm("squeue", "7|PENDING|Priority||demo|0|\n")
    code, _, err = said("logs", "demo")
    assert code == 2
    assert "has said nothing yet: pending: waits for its turn" in err


def test_an_array_asks_for_the_task(slurm, runs, said):
    folder = job(runs, "encode", array=2)
    (folder.log / "7_1.log").write_text("one\n")
    assert "choose one: --task=0 ... --task=1" in said("logs", "encode")[2]
    assert said("logs", "encode", "--task=1")[1] == said("logs", "7_1")[1] == "one\n"


# --- cancel


def test_cancel_ends_the_job_and_names_those_that_go_with_it(slurm, runs, said):
    job(runs, "first")
    job(runs, "second", "8", after=["first"])
    slurm("squeue", "7|RUNNING|None|n1|first|0|\n8|PENDING|Dependency||second|0|\n")
    code, out, _ = said("cancel", "first")
    assert (code, slurm.calls()) == (0, ["scancel 7"])
    assert out == "first: job 7 is cancelled; SLURM cancels with it what waits for it: second\n"


def test_what_is_not_in_the_queue_is_not_cancelled(slurm, runs, said):
    ended(job(runs, "demo"), "done")
    trained_by_hand(runs, "hand")
    assert "demo is not in the queue: done" in said("cancel", "demo")[2]
    assert "`cancel hand --save`" in said("cancel", "hand")[2]
    assert slurm.calls() == []


def test_saving_first_asks_the_run_and_waits_until_it_has_left(slurm, runs, said, monkeypatch):
    started(folder := job(runs, "demo"))
    run = trained_by_hand(runs, "demo")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")

    def leave():
        assert (run / "stop").exists()
        (run / "stop").unlink()
        ended(folder, "stopped")
        slurm("squeue")

    monkeypatch.setattr(cancelling, "pause", leave)
    code, out, _ = said("cancel", "demo", "--save")
    assert (code, slurm.calls()) == (0, [])
    assert out == "demo is saved, 64 images seen, and has stopped\n"


def test_a_job_that_is_put_back_while_it_saves_is_cancelled_there(slurm, runs, said, monkeypatch):
    started(folder := job(runs, "demo"))
    run = trained_by_hand(runs, "demo")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")

    def come_back():
        ended(folder, "requeue")
        slurm("squeue", "7|PENDING|BeginTime||demo|1|\n")

    monkeypatch.setattr(cancelling, "pause", come_back)
    code, out, _ = said("cancel", "demo", "--save")
    assert (code, slurm.calls()) == (0, ["scancel 7"])
    assert out.endswith("is cancelled there; a reason; its newest checkpoint has seen 64 images\n")
    assert not (run / "stop").exists()


def test_a_run_without_a_job_can_be_asked_to_save_and_stop(slurm, runs, said, monkeypatch):
    run = trained_by_hand(runs, "hand")
    leased(run)
    monkeypatch.setattr(cancelling, "pause", lambda: leased(run, is_given_back=True))
    assert said("cancel", "hand", "--save")[1] == "hand is saved and has stopped\n"
    assert (run / "stop").exists()


def test_work_that_keeps_no_state_is_not_asked_to_save(slurm, runs, said):
    job(runs, "encode", command=["lediflow.encode"])
    slurm("squeue", "7|RUNNING|None|n1|encode|0|\n")
    assert "cancel it without --save" in said("cancel", "encode", "--save")[2]


# --- resume


def test_resume_submits_the_job_and_those_that_slurm_gave_up_because_of_it(slurm, runs, said):
    ended(first := job(runs, "first"), "failed")
    second = job(runs, "second", "8", after=["first"])
    job(runs, "third", "9", after=["second"])
    ended(job(runs, "done", "5"), "done", job_id="5")
    slurm("sacct", "".join(f"{id_}|CANCELLED|0:0|0||None|Unknown|{now()}\n" for id_ in (8, 9)))
    code, out, _ = said("resume", "first")
    assert (code, out) == (0, "first is job 90\nsecond is job 90\nthird is job 90\n")
    submissions = slurm.calls()
    assert [
        str(folder.script) in call for folder, call in zip([first, second], submissions, strict=False)
    ] == [True] * 2
    assert "--dependency" not in submissions[0]
    assert "--dependency=afterok:90" in submissions[1]
    assert (first.read().job_ids, second.read().job_ids) == (["7", "90"], ["8", "90"])


def test_one_that_waits_for_ever_is_taken_out_of_the_queue_before(slurm, runs, said):
    ended(job(runs, "first"), "failed")
    job(runs, "second", "8", after=["first"])
    slurm("squeue", "8|PENDING|DependencyNeverSatisfied||second|0|\n")
    assert said("resume", "first")[0] == 0
    assert [call.split()[0] for call in slurm.calls()] == ["sbatch", "scancel", "sbatch"]


def test_jobs_behind_it_that_have_run_or_wait_for_another_that_failed_are_left(slurm, runs, said):
    ended(job(runs, "first"), "failed")
    ended(job(runs, "other", "6"), "failed", job_id="6")
    job(runs, "both", "8", after=["first", "other"])
    started(ran := job(runs, "ran", "9", after=["first"]), "9")
    ended(ran, "failed", job_id="9")
    assert said("resume", "first")[1] == "first is job 90\n"


def test_what_goes_on_by_itself_or_is_done_is_not_resumed(slurm, runs, said):
    job(runs, "waiting")
    ended(job(runs, "done", "8"), "done", job_id="8")
    trained_by_hand(runs, "hand")
    slurm("squeue", "7|PENDING|Priority||waiting|0|\n")
    assert "waiting is not at its end (pending" in said("resume", "waiting")[2]
    assert "done is done" in said("resume", "done")[2]
    assert "repeat the command that started it" in said("resume", "hand")[2]
    assert slurm.calls() == []


def test_one_behind_a_job_that_failed_is_resumed_by_resuming_that(slurm, runs, said):
    ended(job(runs, "first"), "failed")
    ended(second := job(runs, "second", "8", after=["first"]), "failed", job_id="8")
    started(second, "8")
    ended(second, "failed", job_id="8")
    code, _, err = said("resume", "second")
    assert (code, slurm.calls()) == (2, [])
    assert "second comes after first, which is failed; `python -m lediflow.status resume first`" in err
