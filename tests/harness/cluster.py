"""A SLURM of four nodes on this machine, as tests see it: submit, wait, break, look.

`slurm/testcluster/cluster.sh` breaks and repairs it; everything else are SLURM's own commands. Jobs start in the
project's folder and import the project from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from harness.processes import ROOT, clean_environment

SCRIPT = ROOT / "slurm/testcluster/cluster.sh"
SECONDS = 300.0  # far above what SLURM takes for anything but a lost node, on a machine at half its speed too
NODE_LOST_SECONDS = 450.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED")


class Account(NamedTuple):
    """One line of sacct: an incarnation of a job, or of one of its steps."""

    job: str  # 1234, 1234_5, 1234.batch, 1234.0
    state: str
    exit_code: str  # status:signal
    nodes: str


class Cluster:
    """A running cluster."""

    def __init__(self, folder: Path, options: dict[str, str], small_disk: Path | None = None) -> None:
        self.folder = folder
        self.small_disk = small_disk  # that every node sees; None where nobody may mount one
        self.options = {"TESTCLUSTER_DIR": str(folder), **options}
        self.environment = clean_environment() | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            # nothing is compiled here; DeepSpeed alone, as it is imported, asks for a compiler that takes a second
            "TORCHDYNAMO_DISABLE": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    # --- commands

    def control(self, *arguments: object) -> str:
        """`cluster.sh arguments...`; what it prints."""
        return self.run(str(SCRIPT), *arguments)

    def run(self, *command: object, check: bool = True, text: str | None = None) -> str:
        """A command in the cluster's environment, on the machine that the nodes are on; what it prints."""
        ended = subprocess.run(
            [str(word) for word in command],
            env=self.environment | self.options,
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def on_node(self, number: int, *command: object, check: bool = True) -> str:
        """A command on a node."""
        return self.run(SCRIPT, "exec", number, *command, check=check)

    # --- jobs

    def sbatch(self, commands: str, *options: str) -> str:
        """Submit shell commands; the job's id. What they print: `output`."""
        script = f"#!/bin/bash\n{commands}\n"
        name = "%A_%a" if any(option.startswith("--array") for option in options) else "%j"
        output = f"--output={self.folder}/output/{name}.txt"
        (self.folder / "output").mkdir(exist_ok=True)
        said = self.run("sbatch", "--parsable", "--open-mode=append", output, *options, text=script)
        return said.strip().partition(";")[0]

    def output(self, job: str) -> str:
        """What the job printed, all incarnations."""
        file = self.folder / "output" / f"{job}.txt"
        return file.read_text() if file.exists() else ""

    def job(self, job: str) -> dict[str, str]:
        """The controller's knowledge of the job: JobState, Reason, Restarts, NodeList, ExitCode, ..."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job: str) -> str:
        return self.job(job)["JobState"]

    def squeue(self, *options: str) -> list[str]:
        """Ids of the jobs in the queue."""
        return self.run("squeue", "--noheader", "--format=%i", *options).split()

    def sacct(self, job: str) -> list[Account]:
        """What accounting knows just now of the job, incarnations and their steps, oldest first."""
        form = "--format=JobID,State,ExitCode,NodeList"
        said = self.run("sacct", "--duplicates", "--noheader", "--parsable2", form, "--jobs", job)
        return [Account(*line.split("|")) for line in said.splitlines()]

    def incarnations(self, job: str) -> list[Account]:
        """Every incarnation of a job that has ended, oldest first, when accounting has heard of that end."""
        told: list[Account] = []

        def heard() -> bool:
            told[:] = [line for line in self.sacct(job) if line.job == job]
            return bool(told) and told[-1].state.split()[0] in ENDED

        self.wait_until(heard, f"accounts of job {job}")
        return told

    def wait(self, job: str, states: str | Collection[str] = ENDED, seconds: float = SECONDS) -> str:
        """Until the job is in one of the states; which."""
        wanted = (states,) if isinstance(states, str) else tuple(states)
        seen = []
        self.wait_until(
            lambda: seen.append(self.state(job)) or seen[-1] in wanted,  # type: ignore[func-returns-value]
            f"job {job} {' or '.join(wanted)}",
            seconds,
        )
        return seen[-1]

    def wait_for_output(self, job: str, words: str, seconds: float = SECONDS) -> None:
        """Until the job has printed the words."""
        self.wait_until(lambda: words in self.output(job), f"job {job} says {words!r}", seconds)

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for: {what}\n{self.story()}"
            time.sleep(0.1)

    def story(self) -> str:
        """Queue, nodes and the jobs' last words, for a test that failed."""
        outputs = sorted((self.folder / "output").glob("*.txt"), key=lambda file: file.stat().st_mtime)
        told = [f"--- {file.name}\n{file.read_text()[-2000:]}" for file in outputs[-3:]]
        return "\n".join([self.run("squeue"), self.run("sinfo", "--Node"), *told, self.logs("slurmctld")])

    def logs(self, daemons: str = "*") -> str:
        """The last lines of the daemons' logs."""
        files = sorted((self.folder / "log").glob(f"{daemons}.log"))
        return "\n".join(f"--- {file.name}\n" + "\n".join(last_lines(file, 20)) for file in files)

    # --- faults

    def preempt(self, job: str, seconds: int = 1) -> str:
        """A job of a higher partition takes the job's nodes and keeps them for some seconds; its id."""
        nodes = self.job(job)["NodeList"]
        return self.sbatch(
            f"sleep {seconds}", "--partition=high", f"--nodelist={nodes}", "--exclusive", "--job-name=taker"
        )

    def kill_node(self, number: int) -> None:
        """A power failure: every process of the node."""
        self.control("kill-node", number)

    def kill_slurmd(self, number: int) -> None:
        """SLURM's daemon alone: the node's jobs live on, unseen."""
        self.control("kill-slurmd", number)

    def start_node(self, number: int) -> None:
        self.control("start-node", number)

    def node_state(self, number: int) -> str:
        """idle, mixed, allocated, down, ...; with an asterisk while it does not answer."""
        return self.run(
            "sinfo", "--noheader", f"--nodes=node{number}", "--partition=main", "--format=%T"
        ).strip()

    def heal(self) -> None:
        """No jobs, all nodes idle: what every test starts from."""
        if self.squeue():
            self.run("scancel", *self.squeue(), check=False)
        for number in self.numbers:
            if not self._has_slurmd(number):
                self.kill_node(number)  # tasks that outlived their slurmd
                self.start_node(number)
        self.wait_until(lambda: not self.squeue(), "an empty queue")
        self.wait_until(self._is_idle, "idle nodes", NODE_LOST_SECONDS)
        if self._has_lost_gpus():
            self.run("scontrol", "reconfigure")
            self.wait_until(lambda: not self._has_lost_gpus(), "GPUs that SLURM counts again")

    @property
    def is_isolated(self) -> bool:
        """Whether nodes have names, addresses and processes of their own, or all share this machine's."""
        return "ISOLATE=namespaces" in (self.folder / "options").read_text()

    @property
    def numbers(self) -> range:
        return range(1, int(self.options["TESTCLUSTER_NODES"]) + 1)

    def _has_slurmd(self, number: int) -> bool:
        return (self.folder / f"run/slurmd-node{number}.pid").exists()

    def _has_lost_gpus(self) -> bool:
        """Of idle nodes: SLURM 22.05 goes on counting those of a job whose slurmd died."""
        return "AllocTRES=gres/gpu" in self.run("scontrol", "--oneliner", "show", "nodes")

    def _is_idle(self) -> bool:
        states = [self.node_state(number) for number in self.numbers]
        for number, state in zip(self.numbers, states, strict=True):
            if state.startswith("drain"):
                self.run("scontrol", "update", f"NodeName=node{number}", "State=RESUME", check=False)
        return set(states) == {"idle"}


def last_lines(file: Path, count: int) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-count:]
