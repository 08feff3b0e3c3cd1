"""The plain sbatch scripts of slurm/."""

from __future__ import annotations

import json
import sys

import pytest

from lediflow.tracking.event_log import read_events

# several ranks on each node: test_submitted_runs
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gres=gpu:1", "--cpus-per-task=1", "--mem=1000")
ONE = ("--nodes=1", "--ntasks-per-node=1", "--gres=gpu:1", "--cpus-per-task=1", "--mem=1000")
SMOKE = (
    "experiment=smoke", "engine=deepspeed", "engine.device=cpu", "train.checkpoint.every_images=256",
    "tracking.progress=false",
)  # fmt: skip


@pytest.fixture
def sbatch(cluster, tmp_path):
    """(script, options of sbatch, options of the command) -> the job id; its log is JOB.log."""

    def submitted(script, options, command):
        log = f"--output={tmp_path}/%j.log"
        python = f"--export=ALL,PYTHON={sys.executable}"
        printed = cluster.run("sbatch", "--parsable", python, log, *options, f"slurm/{script}", *command)
        return printed.strip()

    return submitted


def resumes(run):
    return [event["images_seen"] for event in read_events(run / "events.jsonl") if event["event"] == "resume"]


def test_a_training_with_a_saved_state_is_requeued_and_reaches_its_end(cluster, sbatch, tmp_path):
    run = tmp_path / "run"
    paths = (f"data.path={tmp_path}/shards", f"run={run}", "stage=auxiliary", "train.images=3000")
    job = sbatch("train.sbatch", TWO_NODES, (*SMOKE, *paths))
    cluster.wait_until(lambda: [*run.glob("checkpoints/[0-9]*")], "a checkpoint", 120)
    cluster.run("scancel", "--signal=USR1", job)
    cluster.wait_until(lambda: resumes(run), "the second attempt", 120)
    assert cluster.wait(job, seconds=400) == "COMPLETED", (tmp_path / f"{job}.log").read_text()
    assert cluster.job(job)["Restarts"] == "1"
    assert [
        event["ranks"] for event in read_events(run / "events.jsonl") if event["event"] in ("start", "resume")
    ] == [2, 2]
    assert (run / "export/model.safetensors").is_file()


def test_a_training_with_wrong_options_is_not_requeued(cluster, sbatch, tmp_path):
    job = sbatch("train.sbatch", ONE, ("experiment=smoke", "train.imagse=1"))
    assert cluster.wait(job, seconds=400) == "FAILED"
    assert cluster.job(job)["Restarts"] == "0"
    assert "nearest valid names: train.images" in (tmp_path / f"{job}.log").read_text()


def test_a_pipeline_of_scripts_reaches_its_results(cluster, tmp_path, monkeypatch):
    train = "engine=deepspeed engine.device=cpu tracking.progress=false"
    variables = {"PYTHON": sys.executable, "TRAIN": train, "EVALUATE": "count=8 step_counts=[1,2] device=cpu"}
    monkeypatch.setattr(cluster, "environment", cluster.environment | variables)
    logs = f"--output={tmp_path}/%x-%j.log"
    said = cluster.run("slurm/pipeline.sh", "smoke", tmp_path / "shards", tmp_path / "runs", *ONE, logs)
    jobs = dict(line.split() for line in said.splitlines())
    assert [*jobs] == ["auxiliary", "flow", "sampler", "evaluate"]
    assert cluster.wait(jobs["evaluate"], seconds=450) == "COMPLETED", [*tmp_path.glob("*.log")]
    (results,) = tmp_path.glob("runs/**/results.json")
    assert [row["steps"] for row in json.loads(results.read_text())["results"]["rows"]] == [1, 2]


def test_shards_are_encoded_by_the_tasks_of_an_array(cluster, sbatch, tmp_path):
    photographs = tmp_path / "photographs"
    cluster.run(sys.executable, "-c", DRAW, photographs)
    cluster.run(
        sys.executable,
        "-m",
        "lediflow.prepare",
        f"source={photographs}",
        f"output={tmp_path}/shards",
        "size=8",
    )
    job = sbatch(
        "encode.sbatch",
        (*ONE, "--array=0-1"),
        (f"source={tmp_path}/shards", f"output={tmp_path}/latents", "codec=pixels"),
    )
    cluster.wait_until(lambda: states_of_tasks(cluster, job) == ["COMPLETED"] * 2, "both tasks", 120)
    index = json.loads((tmp_path / "latents/index.json").read_text())
    assert sum(shard["samples"] for shard in index["shards"]) == 4


def states_of_tasks(cluster, job):
    return [line.state for line in cluster.sacct(job) if "." not in line.job]


DRAW = """
import sys
from pathlib import Path
from PIL import Image
folder = Path(sys.argv[1])
folder.mkdir()
for number in range(4):
    Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / f"{number}.png")
"""
