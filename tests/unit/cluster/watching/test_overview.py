"""The overview of jobs and runs, as `python -m lediflow.status` prints it."""

import json

import pytest
from harness.job_folders import ended, job, leased, started, trained_by_hand


def lines(out):
    return {line.split()[0]: line for line in out.splitlines()}


def test_jobs_and_runs_are_in_one_table(slurm, runs, run_status):
    started(job(runs, "demo.flow"))
    slurm("squeue", "7|RUNNING|None|n[1-2]|demo.flow|0|\n")
    slurm("sacct", "7|RUNNING|0:0|3600|gres/gpu=4|n[1-2]|2026-01-01T10:00:00|Unknown\n")
    trained_by_hand(runs, "demo/flow-by-hand")
    code, out, err = run_status()
    assert (code, err) == (0, "")
    assert lines(out)["demo.flow"].split()[4] == "4.0"  # GPU hours
    assert "starting for 0 s on n[1-2]" in lines(out)["demo.flow"]
    assert " 50 %" in lines(out)["demo.flow-by-hand"]
    assert lines(out)["demo.flow-by-hand"].endswith("not finished; the same command continues")


def test_a_running_run_shows_its_speed_and_the_time_left(slurm, runs, run_status):
    folder = job(runs, "demo")
    started(folder)
    leased(trained_by_hand(runs, "demo", images=64, total=128), job="7")
    slurm("squeue", "7|RUNNING|None|n1|demo|0|\n")
    (row,) = json.loads(run_status("--json")[1])
    assert (row["images_per_second"], row["seconds_left"], row["training_seconds"]) == (32.0, 2.0, 2.0)
    assert row["kind"] == "running"


def test_goodput_is_training_time_over_time_held(slurm, runs, run_status):
    ended(folder := job(runs, "demo"), "done")
    started(folder)
    trained_by_hand(runs, "demo", images=64, total=64)  # 2 s at 32 images/s
    slurm("sacct", "7|NODE_FAIL|0:0|5|gres/gpu=4|n1|a|b\n7|COMPLETED|0:0|15|gres/gpu=4|n1|a|b\n")
    (row,) = json.loads(run_status("--json")[1])
    assert (row["held_seconds"], row["goodput"]) == (20, pytest.approx(0.1))


def test_without_jobs_slurm_is_not_queried(slurm, runs, run_status, tmp_path):
    trained_by_hand(runs, "demo")
    assert run_status()[0] == 0
    assert not (tmp_path / "calls").exists()


def test_a_cluster_without_accounting_is_reported_once_and_the_records_are_used(
    slurm, runs, run_status, tmp_path
):
    for name, job_id in (("a", "7"), ("b", "8")):
        ended(folder := job(runs, name, job_id), "failed", job_id=job_id)
        started(folder, job_id, restart=1)
        ended(folder, "done", job_id=job_id, restart=1)
    (tmp_path / "answers/sacct").unlink()
    code, out, err = run_status()
    assert code == 0
    assert err.count("note:") == 1
    assert "sacct: no answer" in err
    assert lines(out)["a"].endswith("done")


def test_a_machine_without_slurm_shows_what_the_folders_contain(runs, run_status, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    started(job(runs, "demo"))
    code, out, err = run_status()
    assert code == 0
    assert "squeue is not installed here" in err
    assert "SLURM does not answer" in out


def test_a_damaged_record_hides_no_other_job(slurm, runs, run_status):
    job(runs, "whole")
    job(runs, "damaged").record_file.write_text('{"name": "to')
    code, out, err = run_status()
    assert (code, [*lines(out)]) == (0, ["name", "whole"])
    assert "damaged" in err


def test_tasks_of_an_array_are_counted_by_state(slurm, runs, run_status):
    folder = job(runs, "encode", command=["lediflow.encode"], array=4)
    started(folder, "7_0")
    ended(folder, "done", job_id="7_0")
    started(folder, "7_1")
    slurm("squeue", "7_1|RUNNING|None|n1|encode|0|\n7_[2-3%1]|PENDING|JobArrayTaskLimit||encode|0|\n")
    assert "tasks: 1 done, 2 pending, 1 running" in run_status()[1]


def test_a_missing_folder_is_refused_with_advice(runs, run_status):
    runs.rmdir()
    code, _, err = run_status()
    assert code == 2
    assert "give the one that contains the runs" in err


def test_a_folder_of_runs_that_was_moved_shows_the_same_rows(slurm, runs, run_status):
    folder = job(runs, "demo", snapshot=f"{runs}/jobs/.code/abc")
    started(folder)
    ended(folder, "done")
    trained_by_hand(runs, "demo", images=128)
    before = run_status()[1]
    runs.rename(moved := runs.with_name("moved"))
    code, out, _ = run_status(place=moved)
    assert (code, out) == (0, before)
