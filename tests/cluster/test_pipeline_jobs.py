"""Jobs of a pipeline start after their dependencies; a failure cancels its dependents and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.submitted import RANK_CODE, Submitted, command

from lediflow.cluster.jobs import JobFolder, all_jobs
from lediflow.data.synthetic import make_synthetic_images

# the second task of the dogs' latents dies before it begins
BREAKING = """
import os, sys
is_dogs = any(word.endswith("dogs.latents") for word in sys.orig_argv)
if is_dogs and os.environ.get("SLURM_ARRAY_TASK_ID") == "1":
    os._exit(1)
"""
FIRST, SECOND = "cats.auxiliary-learned-seed0", "cats.auxiliary-learned-seed1"
CHAIN = ["auxiliary", "flow", "latent_sampler"]


class Pipeline:
    """The same pipeline with two seeds, submitted repeatedly."""

    def __init__(self, cluster: Cluster, place: Path) -> None:
        self.cluster, self.place = cluster, place
        self.runs, self.breaking = place / "runs", place / "breaking.py"

    def submit(self, *data: str, dry: bool = False) -> dict[str, str]:
        """The state of each job of these data sets, by the job's name without the pipeline's."""
        sources = ",".join(str(self.place / name) for name in data)
        output = command(
            self.cluster, "submit", "pipeline=smoke", f"source={sources}", "seed=0,1",
            f"paths.runs={self.runs}", "slurm.crash_retries=0", "auxiliary.train.images=2000", "slurm.mem_gb=0.5",
            f"++slurm.environment={{{RANK_CODE}:{self.breaking}}}", *["--dry-run"][: int(dry)],
        )  # fmt: skip
        rows = [line.split("smoke.", 1)[1].split() for line in output.splitlines() if " smoke." in line]
        return {name: "done" if state[0] == "done" else " ".join(state[:2]) for name, *state in rows}

    def __getitem__(self, name: str) -> Submitted:
        return Submitted(self.cluster, JobFolder(self.runs / f"jobs/smoke.{name}"))

    def ids(self) -> dict[str, list[str]]:
        return {folder.name: folder.read().job_ids for folder in all_jobs(self.runs)}

    def wait(self) -> None:
        self.cluster.wait_until(lambda: not self.cluster.squeue(), "the pipeline ends", seconds=450)

    def results(self, data: str, seed: int) -> Path:
        return self.runs / f"smoke/{data}/flow-learned-seed{seed}/results/results.json"


@pytest.fixture(scope="module")
def pipeline(cluster, tmp_path_factory):
    """A pipeline at its end. A file is in the way of the cats' second seed, and a task of the dogs' latents fails."""
    place = tmp_path_factory.mktemp("pipeline")
    for number, name in enumerate(("cats", "dogs")):
        make_synthetic_images(place / name, 40, size=16, seed=number)
    found = Pipeline(cluster, place)
    found.breaking.write_text(BREAKING)
    (found.runs / "smoke/cats").mkdir(parents=True)
    (found.runs / f"smoke/{SECOND.replace('.', '/')}").write_text("in the way")
    found.first = found.submit("cats", "dogs")
    found[FIRST].wait_for_progress()
    cluster.run("scancel", "--signal=USR1", found[FIRST].job)
    found.wait()
    return found


def test_everything_was_queued_at_once_and_the_data_once(pipeline):
    assert len(pipeline.first) == 2 * (2 + 2 * 4)
    assert all(state.startswith("submitted as") for state in pipeline.first.values())


def test_the_chain_finishes_although_a_job_was_requeued(pipeline):
    assert [end["decision"] for end in pipeline[FIRST].noted("end")] == ["requeue", "done"]
    rows = json.loads(pipeline.results("cats", 0).read_text())["results"]["rows"]
    assert [row["steps"] for row in rows] == [1, 2]


def test_the_tasks_of_an_array_share_the_work_and_one_of_them_writes_the_index(pipeline):
    ends = pipeline["cats.latents"].noted("end")
    assert sorted((end["array_task"], end["decision"]) for end in ends) == [(0, "done"), (1, "done")]
    index = json.loads((pipeline.runs / "smoke/cats/latents/index.json").read_text())
    assert len(index["shards"]) == 3


def test_a_failed_seed_and_a_failed_data_set_cancel_only_their_dependents(pipeline):
    assert pipeline[SECOND].noted("end")[-1]["decision"] == "failed"
    assert {end["array_task"]: end["decision"] for end in pipeline["dogs.latents"].noted("end")}[
        1
    ] == "failed"
    never = {name for name in pipeline.first if not pipeline[name].noted("start")}
    after_seed = {f"cats.{stage}-learned-seed1" for stage in CHAIN[1:]} | {"cats.flow-learned-seed1.results"}
    assert never == after_seed | {
        f"dogs.{name}-learned-seed{seed}{results}"
        for seed in (0, 1)
        for name, results in [*((stage, "") for stage in CHAIN), ("flow", ".results")]
    }
    assert {pipeline.cluster.state(pipeline[name].job) for name in never} == {"CANCELLED"}


def test_a_repeated_submission_repeats_only_what_failed(pipeline):
    (pipeline.runs / f"smoke/{SECOND.replace('.', '/')}").unlink()
    before, planned = pipeline.ids(), pipeline.submit("cats", "dogs", dry=True)
    assert pipeline.ids() == before
    done = {name for name, state in planned.items() if state == "done"}
    assert done == {
        "cats.images", "dogs.images", "cats.latents", "cats.flow-learned-seed0.results",
        *(f"cats.{stage}-learned-seed0" for stage in CHAIN),
    }  # fmt: skip

    again = pipeline.submit("cats")
    assert {name for name, state in again.items() if state == "done"} == done - {"dogs.images"}
    assert [state for state in again.values() if state.startswith("submitted")] == ["submitted as"] * 4
    ids = pipeline.ids()
    pipeline.submit("cats")
    assert pipeline.ids() == ids  # jobs in the queue are left alone

    pipeline.wait()
    assert pipeline.results("cats", 1).is_file()
    assert {*pipeline.submit("cats", dry=True).values()} == {"done"}
