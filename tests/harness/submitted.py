"""A run on the test cluster, submitted as a user does, and faults of its ranks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from harness.cluster import Cluster
from harness.commands import invoke
from harness.curves import assert_same_tensors, newest_state, weights
from harness.forks import Forks
from harness.processes import ROOT
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.tracking.event_log import read_events

SECONDS = 400.0  # of an idle machine, see Patience; far above what two attempts take
RANKS = ("engine=deepspeed", "engine.device=cpu", "slurm.cpus_per_task=1", "slurm.mem_gb=1")
TWO_BY_TWO = (*RANKS, "slurm.nodes=2", "slurm.tasks_per_node=2", "slurm.gpus_per_node=2")
RANK_CODE = "LEDIFLOW_TEST_RANK_CODE"  # names the file in nodes/sitecustomize.py
BRAKED = """
import lediflow.training.loop as loop, os, time
def take_time(*arguments, take_step=loop.take_step):
    if not os.path.exists("{release}"):
        time.sleep(0.5)
    return take_step(*arguments)
loop.take_step = take_time
"""
ONE_RANK = (*RANKS, "slurm.nodes=1", "slurm.tasks_per_node=1", "slurm.gpus_per_node=1")
TWO_NODES = (*RANKS, "slurm.nodes=2", "slurm.tasks_per_node=1", "slurm.gpus_per_node=1")


@dataclass
class Submitted:
    """A job on the cluster."""

    cluster: Cluster
    folder: JobFolder

    @property
    def record(self) -> JobRecord:
        return self.folder.read()

    @property
    def run(self) -> Path:
        return Path(self.record.run)

    @property
    def job(self) -> str:
        return self.record.job_ids[-1]

    def noted(self, event: str) -> list[dict[str, Any]]:
        """Records `start` or `end` of each attempt."""
        return [entry for entry in self.folder.attempts() if entry["event"] == event]

    def checkpoint(self) -> int:
        """Images seen at the newest checkpoint."""
        return max((int(path.name) for path in (self.run / "checkpoints").glob("[0-9]*")), default=0)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind in the run's log."""
        return [event for event in read_events(self.run / "events.jsonl") if event["event"] == kind]

    def resumes(self) -> list[int]:
        """Images seen at which sessions resumed."""
        return [event["images_seen"] for event in self.events("resume")]

    def hosts_of_ranks(self) -> set[str]:
        """Nodes on which ranks of this job run."""
        return {env["SLURMD_NODENAME"] for _, env in self._processes()}

    def wait_for_progress(self) -> int:
        """Wait for a new checkpoint; images seen at it."""
        before = self.checkpoint()
        self.cluster.wait_until(lambda: self.checkpoint() > before, f"{self.folder.name} saves", SECONDS)
        return self.checkpoint()

    def wait_for_start(self, number: int) -> dict[str, Any]:
        """Wait for attempt `number`, counted from 1; its start record."""
        self.cluster.wait_until(lambda: len(self.noted("start")) >= number, f"attempt {number}", SECONDS)
        return self.noted("start")[number - 1]

    def wait_for_end(self, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait until the job has left the queue; its last end record."""
        self.cluster.wait_until(lambda: not self.cluster.squeue("--jobs", self.job, "--states=all")
                                or self.cluster.state(self.job) in ("COMPLETED", "FAILED", "CANCELLED"),
                                f"{self.folder.name} ends", seconds)  # fmt: skip
        return self.noted("end")[-1]

    def kill_rank(self, rank: int) -> None:
        """Send SIGKILL to the process of a rank."""
        (pid,) = [pid for pid, env in self._processes() if env.get("SLURM_PROCID") == str(rank)]
        os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Process ids and environments of the ranks, on all nodes."""
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                words = (entry / "environ").read_text(errors="replace").split("\0")
            except OSError:
                continue
            if (
                b"lediflow.cluster.running.task" in command
                and command[0].endswith(b"python")
                and b"srun" not in command[0]
            ):
                env = dict(word.partition("=")[::2] for word in words)
                ours = self.cluster.environment["SLURM_CONF"]  # other clusters may have the same ids
                if (env.get("SLURM_JOB_ID"), env.get("SLURM_CONF")) == (self.job, ours):
                    yield int(entry.name), env


def command(cluster: Cluster, name: str, *arguments: str) -> str:
    """Output of `python -m lediflow.<name>` in the cluster's environment, without seconds of imports for each call."""
    with mock.patch.dict(os.environ, cluster.environment, clear=True), contextlib.chdir(ROOT):
        said = invoke(name, *arguments)
    assert said.status == 0, f"{name} {arguments}: {said.out}{said.err}"
    return said.out


def status(cluster: Cluster, runs: Path, *words: str) -> str:
    """Output of `python -m lediflow.status` on a folder of runs."""
    place = [f"--runs={runs}"] if words and words[0] in ("logs", "cancel", "resume") else [str(runs)]
    if words[:1] == ("logs",):  # writes bytes to a real stdout
        return cluster.run(sys.executable, "-m", "lediflow.status", *words, *place)
    return command(cluster, "status", *words, *place)


def status_row(run: Submitted) -> dict[str, Any]:
    """The job's object in the output of `status --json`."""
    rows = json.loads(status(run.cluster, run.folder.root.parents[1], "--json"))
    return next(row for row in rows if row["name"] == run.folder.name)


def on_every_rank(folder: Path, code: str) -> str:
    """The option that makes every rank run this code before its command (harness/nodes/sitecustomize.py)."""
    folder.mkdir()
    file = folder / "every_rank.py"
    file.write_text(code)
    return f"slurm.setup=['export {RANK_CODE}={file}']"


def smoke(runs: Path, run: Path) -> list[str]:
    """The options of a small training."""
    return [
        "experiment=smoke", "stage=auxiliary", f"paths.runs={runs}", f"data.path={runs}/shards", f"run={run}",
    ]  # fmt: skip


def braked(folder: Path) -> tuple[str, Path]:
    """An option that adds half a second to every step until a file is there, and that file.

    However slow the commands of a test are, the run does not end before them, and it leaves them the processors.
    """
    release = folder.with_suffix(".released")
    return on_every_rank(folder, BRAKED.format(release=release)), release


def submit(cluster: Cluster, runs: Path, name: str, *options: str) -> Submitted:
    """Submit a smoke run in RUNS/name by `python -m lediflow.submit`."""
    command(cluster, "submit", *smoke(runs, runs / name), *options)
    return Submitted(cluster, JobFolder(runs / "jobs" / name))


def undisturbed(forks: Forks, runs: Path, *options: str) -> Path:
    """The folder of the same training, by as many ranks as TWO_NODES, without SLURM."""
    run = runs / "undisturbed"
    common = smoke(runs, run)
    forks.succeed_on_ranks(2, "lediflow.train", *common, "engine=deepspeed", "engine.device=cpu", *options)
    return run


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """Compare weights and the whole state bit for bit."""
    assert_same_tensors(newest_state(run), newest_state(undisturbed))
    assert_same_tensors(weights(run), weights(undisturbed))
