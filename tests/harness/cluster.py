"""A SLURM of four nodes on this machine, for tests: submit, wait, cause faults, inspect.

`slurm/testcluster/cluster.sh` causes and repairs faults; everything else is done by SLURM's own commands. Jobs start in
the project's folder and import the project from there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from harness.patience import share_of_core, wait_until
from harness.processes import ROOT, clean_environment

SCRIPT = ROOT / "slurm/testcluster/cluster.sh"
# Limits in seconds of an idle machine, see Patience; SLURM takes far less.
SECONDS = 200.0
NODE_LOST_SECONDS = 300.0
COMMAND_SECONDS = 300.0  # of one command, in seconds of this machine
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")
ENDED = (*FINAL, "NODE_FAIL", "PREEMPTED")  # the last two may be followed by a restart


class Account(NamedTuple):
    """One line of sacct: an attempt of a job, or of one of its steps."""

    job: str  # 1234, 1234_5, 1234.batch, 1234.0
    state: str
    exit_code: str  # status:signal
    nodes: str


class Cluster:
    """A running cluster."""

    def __init__(self, folder: Path, options: dict[str, str], small_disk: Path | None = None) -> None:
        self.folder = folder
        self.small_disk = small_disk  # a disk that every node sees; None if it could not be mounted
        self.options = {"TESTCLUSTER_DIR": str(folder), **options}
        self.environment = clean_environment() | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/harness/nodes'}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    # --- commands

    def control(self, *arguments: object) -> str:
        """Output of `cluster.sh arguments...`."""
        return self.run(str(SCRIPT), *arguments)

    def run(self, *command: object, check: bool = True, text: str | None = None) -> str:
        """Output of a command in the cluster's environment, on the machine of the nodes."""
        ended = subprocess.run(
            [str(word) for word in command],
            env=self.environment | self.options,
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    # --- jobs

    def sbatch(self, commands: str, *options: str) -> str:
        """Submit shell commands; returns the job id. Their output is that of `output`."""
        script = f"#!/bin/bash\n{commands}\n"
        name = "%A_%a" if any(option.startswith("--array") for option in options) else "%j"
        output = f"--output={self.folder}/output/{name}.txt"
        (self.folder / "output").mkdir(exist_ok=True)
        said = self.run("sbatch", "--parsable", "--open-mode=append", output, *options, text=script)
        return said.strip().partition(";")[0]

    def output(self, job: str) -> str:
        """What all attempts of the job have printed."""
        file = self.folder / "output" / f"{job}.txt"
        return file.read_text() if file.exists() else ""

    def job(self, job: str) -> dict[str, str]:
        """The job as the controller has it: JobState, Reason, Restarts, NodeList, ExitCode, ..."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job: str) -> str:
        return self.job(job)["JobState"]

    def squeue(self, *options: str) -> list[str]:
        """Ids of the jobs in the queue."""
        return self.run("squeue", "--noheader", "--format=%i", *options).split()

    def sacct(self, job: str) -> list[Account]:
        """The job's attempts and their steps in the accounting, oldest first."""
        form = "--format=JobID,State,ExitCode,NodeList"
        said = self.run("sacct", "--duplicates", "--noheader", "--parsable2", form, "--jobs", job)
        return [Account(*line.split("|")) for line in said.splitlines()]

    def attempts(self, job: str) -> list[Account]:
        """Every attempt of a job that has ended, oldest first, once the accounting has its end."""
        found: list[Account] = []

        def has_end() -> bool:
            found[:] = [line for line in self.sacct(job) if line.job == job]
            return bool(found) and found[-1].state.split()[0] in ENDED

        self.wait_until(has_end, f"the accounting has the end of job {job}")
        return found

    def wait(self, job: str, states: str | Collection[str] = ENDED, seconds: float = SECONDS) -> str:
        """Wait until the job is in one of the states; returns it. Any other final state is an error at once."""
        wanted = (states,) if isinstance(states, str) else tuple(states)
        state = ""

        def is_there() -> bool:
            nonlocal state
            state = self.state(job)
            assert state in wanted or state not in FINAL, (
                f"job {job} is {state}, not {wanted}\n{self.story()}"
            )
            return state in wanted

        self.wait_until(is_there, f"job {job} {' or '.join(wanted)}", seconds)
        return state

    def wait_for_output(self, job: str, words: str, seconds: float = SECONDS) -> None:
        """Wait until the job has printed the words; a job that ends without them is an error at once."""

        def is_printed() -> bool:
            has_ended = self.state(job) in FINAL  # asked before the look at the output
            is_there = words in self.output(job)
            assert is_there or not has_ended, f"job {job} has ended without {words!r}\n{self.story()}"
            return is_there

        self.wait_until(is_printed, f"job {job} prints {words!r}", seconds)

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        """Wait for a condition; an error after `seconds` of an idle machine."""
        if not wait_until(condition, seconds, pause_seconds=0.1):
            limit = f"{seconds} s of an idle machine, at {share_of_core():.0%} of its speed"
            raise AssertionError(f"waited {limit} for: {what}\n{self.story()}")

    def processes_of(self, job: str) -> list[int]:
        """Processes of a job that are alive on any node."""
        wanted = {f"SLURM_JOB_ID={job}", f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                environment = (process / "environ").read_text(errors="replace").split("\0")
                if wanted <= {*environment}:
                    found.append(int(process.name))
        return found

    def story(self) -> str:
        """Queue, nodes and the last output of jobs, for a test that failed."""
        outputs = sorted((self.folder / "output").glob("*.txt"), key=lambda file: file.stat().st_mtime)
        shown = [f"--- {file.name}\n{file.read_text()[-2000:]}" for file in outputs[-3:]]
        return "\n".join([self.run("squeue"), self.run("sinfo", "--Node"), *shown, self.logs("slurmctld")])

    def logs(self, daemons: str = "*") -> str:
        """The last lines of the daemons' logs."""
        files = sorted((self.folder / "log").glob(f"{daemons}.log"))
        return "\n".join(f"--- {file.name}\n" + "\n".join(last_lines(file, 20)) for file in files)

    # --- faults

    def preempt(self, job: str, seconds: int = 1) -> str:
        """Submit a job of a higher partition that takes the job's nodes for some seconds; returns its id."""
        nodes = self.job(job)["NodeList"]
        return self.sbatch(
            f"sleep {seconds}", "--partition=high", f"--nodelist={nodes}", "--exclusive", "--job-name=taker"
        )

    def kill_node(self, number: int) -> None:
        """Power failure: kill every process of the node."""
        self.control("kill-node", number)

    def kill_slurmd(self, number: int) -> None:
        """Kill SLURM's daemon alone: the node's jobs live on without its knowledge."""
        self.control("kill-slurmd", number)

    def start_node(self, number: int) -> None:
        self.control("start-node", number)

    def node_state(self, number: int) -> str:
        """State of a node: idle, mixed, allocated, down, ...; with an asterisk while it does not answer."""
        return self.run(
            "sinfo", "--noheader", f"--nodes=node{number}", "--partition=main", "--format=%T"
        ).strip()

    def heal(self) -> None:
        """Restore what every test starts from: an empty queue, all nodes idle."""
        if self.squeue():
            self.run("scancel", *self.squeue(), check=False)
        for number in self.numbers:
            if not self._has_slurmd(number):
                self.kill_node(number)  # with the tasks that outlived their slurmd
                self.start_node(number)
        self.wait_until(lambda: not self.squeue(), "an empty queue")
        self.wait_until(self._is_idle, "idle nodes", NODE_LOST_SECONDS)
        if self._has_lost_gpus():
            self.run("scontrol", "reconfigure")
            self.wait_until(lambda: not self._has_lost_gpus(), "SLURM counts all GPUs as free")

    @property
    def is_isolated(self) -> bool:
        """Whether nodes have their own names, addresses and processes, or share those of this machine."""
        return "ISOLATE=namespaces" in (self.folder / "options").read_text()

    @property
    def numbers(self) -> range:
        return range(1, int(self.options["TESTCLUSTER_NODES"]) + 1)

    def _has_slurmd(self, number: int) -> bool:
        return (self.folder / f"run/slurmd-node{number}.pid").exists()

    def _has_lost_gpus(self) -> bool:
        """Whether idle nodes have allocated GPUs: SLURM 22.05 does not free those of a job whose slurmd died."""
        return "AllocTRES=gres/gpu" in self.run("scontrol", "--oneliner", "show", "nodes")

    def _is_idle(self) -> bool:
        states = [self.node_state(number) for number in self.numbers]
        for number, state in zip(self.numbers, states, strict=True):
            if state.startswith("drain"):
                self.run("scontrol", "update", f"NodeName=node{number}", "State=RESUME", check=False)
        return set(states) == {"idle"}


def last_lines(file: Path, count: int) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-count:]
