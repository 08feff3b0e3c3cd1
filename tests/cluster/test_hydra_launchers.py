"""`-m hydra/launcher=...` on a real SLURM."""

from __future__ import annotations

import pytest
from harness.processes import run
from harness.submitted import Submitted

from lediflow.cluster.jobs import all_jobs
from lediflow.tracking.event_log import read_events

TWO_NODES = (
    "experiment=smoke", "stage=auxiliary", "train.images=128", "train.bad_steps.in_a_row=2", "engine=deepspeed",
    "engine.device=cpu",
    "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1", "hydra.launcher.gpus_per_node=1",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1", "hydra.launcher.crash_retries=0",
)  # fmt: skip

ONE_BY_ONE = ("hydra.launcher.nodes=1", "hydra.launcher.tasks_per_node=1", "hydra.launcher.gpus_per_node=1")


@pytest.fixture
def multirun(cluster, tmp_path):
    """(launcher, options) -> the finished `python -m lediflow.train -m`, and the jobs it made, by name."""

    def launched(launcher, *options):
        paths = (f"paths.runs={tmp_path}", f"data.path={tmp_path}/shards")
        command = ("-m", f"hydra/launcher={launcher}", *TWO_NODES, *paths, *options)
        finished = run("lediflow.train", *command, env=cluster.environment)
        return finished, {folder.name: Submitted(cluster, folder) for folder in all_jobs(tmp_path)}

    return launched


def test_a_sweep_through_submitit_waits_for_each_and_names_the_one_that_failed(multirun):
    finished, jobs = multirun("submitit_slurm", "train.learning_rate=1e-3,1e30", "tracking.progress=false")
    assert finished.status == 1, finished.output
    good, bad = (jobs[name] for name in sorted(jobs, key=lambda name: "1e30" in name))
    assert good.noted("end")[-1]["decision"] == "done", finished.output
    assert finished.output.count("error:") == 1
    assert f"error: {bad.folder.name}: job {bad.job} failed: " in finished.output
    events = read_events(good.run / "events.jsonl")
    assert [event["ranks"] for event in events if event["event"] == "start"] == [2]  # one group, one log
    assert (good.run / "export/model.safetensors").is_file()


def test_a_wrong_partition_is_reported_once_in_slurms_words_with_the_option_to_change(multirun):
    finished, _ = multirun("submitit_slurm", "hydra.launcher.partition=nowhere")
    assert finished.status == 2
    assert finished.output.count("invalid partition specified: nowhere") == 1
    assert "Change hydra.launcher.partition" in finished.output


def test_the_other_launcher_returns_at_once_and_the_job_runs_without_it(multirun):
    finished, jobs = multirun("lediflow_slurm", *ONE_BY_ONE, "seed=7")
    assert finished.status == 0, finished.output
    (job,) = jobs.values()
    assert f"is job {job.job}" in finished.output
    assert job.wait_for_end()["decision"] == "done"
    assert (job.run / "export/model.safetensors").is_file()
