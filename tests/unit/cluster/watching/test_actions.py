"""Jobs and runs are looked up by name, cancelled, and resumed."""

import pytest
from harness.job_folders import ended, job, leased, started, trained_by_hand

from lediflow.cluster.jobs import JobFolder, now
from lediflow.cluster.watching.actions import lookup, save_and_cancel
from lediflow.cluster.watching.overview import Overview

# --- lookup


@pytest.mark.parametrize("asked", ["demo.flow", "7", "7_2", "{runs}/demo.flow", "{runs}/jobs/demo.flow"])
def test_a_job_is_found_by_name_id_or_folder(slurm, runs, run_status, asked):
    (job(runs, "demo.flow").log / "7.log").write_text("a word\n")
    assert run_status("logs", asked.format(runs=runs)) == (0, "a word\n", "")


def test_a_mistyped_name_gets_the_nearest_names(slurm, runs, run_status):
    job(runs, "demo.flow-seed0")
    trained_by_hand(runs, "other")
    code, _, err = run_status("logs", "demo/flow-sed0")
    assert code == 2
    assert "nearest names: demo.flow-seed0" in err


# --- cancel


def saved_and_cancelled(runs, name, pause):
    """The outcome of `cancel NAME --save`; `pause` is what happens between two looks at the run."""
    overview = Overview(runs)
    return save_and_cancel(overview, lookup(overview.rows, name), pause)


def test_cancel_ends_the_job_and_names_its_dependents(slurm, runs, run_status):
    job(runs, "first")
    job(runs, "second", "8", after=["first"])
    slurm("squeue", "7|RUNNING|None|n1|first|0|\n8|PENDING|Dependency||second|0|\n")
    code, out, _ = run_status("cancel", "first")
    assert (code, slurm.calls()) == (0, ["scancel 7"])
    assert out == "first: job 7 is cancelled; SLURM also cancels the jobs that wait for it: second\n"


def test_a_job_that_is_not_in_the_queue_is_not_cancelled(slurm, runs, run_status):
    ended(job(runs, "demo"), "done")
    trained_by_hand(runs, "hand")
    assert "demo is not in the queue: done" in run_status("cancel", "demo")[2]
    assert "`cancel hand --save`" in run_status("cancel", "hand")[2]
    assert slurm.calls() == []


def test_cancel_with_save_requests_a_stop_and_waits_for_it(slurm, runs, run_status):
    started(folder := job(runs, "demo"))
    run = trained_by_hand(runs, "demo")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")

    def leave():
        assert (run / "stop").exists()
        (run / "stop").unlink()
        ended(folder, "stopped")
        slurm("squeue")

    assert saved_and_cancelled(runs, "demo", leave) == "demo is saved, 64 images seen, and has stopped"
    assert slurm.calls() == []


def test_a_job_that_is_requeued_while_it_saves_is_cancelled(slurm, runs, run_status):
    started(folder := job(runs, "demo"))
    run = trained_by_hand(runs, "demo")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")

    def come_back():
        ended(folder, "requeue")
        slurm("squeue", "7|PENDING|BeginTime||demo|1|\n")

    outcome = saved_and_cancelled(runs, "demo", come_back)
    assert outcome.endswith("is cancelled now; a reason; its newest checkpoint has seen 64 images")
    assert slurm.calls() == ["scancel 7"]
    assert not (run / "stop").exists()


def test_a_run_without_a_job_can_be_saved_and_stopped(slurm, runs):
    run = trained_by_hand(runs, "hand")
    leased(run)
    outcome = saved_and_cancelled(runs, "hand", pause=lambda: leased(run, is_given_back=True))
    assert outcome == "hand is saved and has stopped"
    assert (run / "stop").exists()


def test_a_command_without_state_cannot_be_saved(slurm, runs, run_status):
    job(runs, "encode", command=["lediflow.encode"])
    slurm("squeue", "7|RUNNING|None|n1|encode|0|\n")
    assert "cancel it without --save" in run_status("cancel", "encode", "--save")[2]


# --- resume


def test_resume_submits_the_job_and_the_dependents_that_slurm_cancelled(slurm, runs, run_status):
    ended(first := job(runs, "first"), "failed")
    second = job(runs, "second", "8", after=["first"])
    job(runs, "third", "9", after=["second"])
    ended(job(runs, "done", "5"), "done", job_id="5")
    slurm("sacct", "".join(f"{id_}|CANCELLED|0:0|0||None|Unknown|{now()}\n" for id_ in (8, 9)))
    code, out, _ = run_status("resume", "first")
    assert (code, out) == (0, "first is job 90\nsecond is job 90\nthird is job 90\n")
    submissions = slurm.calls()
    assert [
        str(folder.script) in call for folder, call in zip([first, second], submissions, strict=False)
    ] == [True] * 2
    assert "--dependency" not in submissions[0]
    assert "--dependency=afterok:90" in submissions[1]
    assert (first.read().job_ids, second.read().job_ids) == (["7", "90"], ["8", "90"])


def test_a_dependent_that_waits_forever_is_cancelled_before_it_is_submitted_again(slurm, runs, run_status):
    ended(job(runs, "first"), "failed")
    job(runs, "second", "8", after=["first"])
    slurm("squeue", "8|PENDING|DependencyNeverSatisfied||second|0|\n")
    assert run_status("resume", "first")[0] == 0
    assert [call.split()[0] for call in slurm.calls()] == ["sbatch", "scancel", "sbatch"]


def test_dependents_that_ran_or_have_another_failed_dependency_are_not_resubmitted(slurm, runs, run_status):
    ended(job(runs, "first"), "failed")
    ended(job(runs, "other", "6"), "failed", job_id="6")
    job(runs, "both", "8", after=["first", "other"])
    started(ran := job(runs, "ran", "9", after=["first"]), "9")
    ended(ran, "failed", job_id="9")
    assert run_status("resume", "first")[1] == "first is job 90\n"


def test_a_job_that_continues_by_itself_or_is_done_is_not_resumed(slurm, runs, run_status):
    job(runs, "waiting")
    ended(job(runs, "done", "8"), "done", job_id="8")
    trained_by_hand(runs, "hand")
    slurm("squeue", "7|PENDING|Priority||waiting|0|\n")
    assert "waiting has not ended (pending" in run_status("resume", "waiting")[2]
    assert "done is done" in run_status("resume", "done")[2]
    assert "repeat the command that started it" in run_status("resume", "hand")[2]
    assert slurm.calls() == []


def test_a_job_with_a_failed_dependency_is_resumed_through_that(slurm, runs, run_status):
    ended(job(runs, "first"), "failed")
    ended(second := job(runs, "second", "8", after=["first"]), "failed", job_id="8")
    started(second, "8")
    ended(second, "failed", job_id="8")
    code, _, err = run_status("resume", "second")
    assert (code, slurm.calls()) == (2, [])
    assert "second depends on first, which is failed; `python -m lediflow.status resume first`" in err


def test_a_job_in_a_folder_of_runs_that_was_moved_is_resumed_there(slurm, runs, run_status):
    command = ["lediflow.train", f"run={runs}/demo"]
    ended(job(runs, "demo", command=command, snapshot=f"{runs}/jobs/.code/abc"), "failed")
    trained_by_hand(runs, "demo")
    runs.rename(moved := runs.with_name("moved"))
    assert run_status("resume", str(moved / "demo"), place=moved)[:2] == (0, "demo is job 90\n")
    (submission,) = slurm.calls()
    folder = JobFolder(moved / "jobs/demo")
    assert submission.endswith(str(folder.script))
    assert folder.read().command == ["lediflow.train", f"run={moved}/demo"]
    assert f"{runs}/" not in folder.script.read_text() + folder.record_file.read_text()
