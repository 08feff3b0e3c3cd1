"""The test cluster behaves as real clusters do, as far as other tests rely on it."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
from harness.cluster import SCRIPT, Account, Cluster
from harness.cluster_start import is_free, running_cluster
from harness.processes import Started

HOSTS = Path("/etc/hosts")
FIRST_ONLY = '[ -z "$SLURM_RESTART_COUNT" ] || exit 0'  # later attempts end at once


def test_a_job_spans_nodes_with_names_and_addresses_of_their_own(cluster: Cluster) -> None:
    command = "srun bash -c 'echo $SLURMD_NODENAME $(hostname) $(getent hosts $SLURMD_NODENAME)'"
    job = cluster.sbatch(command, "--nodes=4", "--ntasks-per-node=1")
    assert cluster.wait(job) == "COMPLETED"
    assert sorted(cluster.output(job).splitlines()) == [
        " ".join((f"node{n}", host, address, f"node{n}"))
        for n in cluster.numbers
        for host, address in [place(cluster, n)]
    ]


def place(cluster: Cluster, number: int) -> tuple[str, str]:
    """Host name and address of a node."""
    if cluster.is_isolated:
        return f"node{number}", f"{cluster.options['TESTCLUSTER_NET']}.{10 + number}"
    return socket.gethostname(), "127.0.0.1"


def test_jobs_on_one_node_get_different_gpus(cluster: Cluster) -> None:
    request = (
        "echo GPUs $CUDA_VISIBLE_DEVICES; sleep 2",
        "--nodelist=node1",
        "--gpus-per-node=2",
        "--mem=100",
    )
    jobs = [cluster.sbatch(*request) for _ in range(2)]
    for job in jobs:
        cluster.wait(job)
    assert sorted(cluster.output(job) for job in jobs) == ["GPUs 0,1\n", "GPUs 2,3\n"]


def test_the_accounting_has_the_end_of_jobs(cluster: Cluster) -> None:
    good, bad = cluster.sbatch("true"), cluster.sbatch("exit 3")
    assert (cluster.wait(good), cluster.wait(bad)) == ("COMPLETED", "FAILED")
    node = {job: cluster.job(job)["NodeList"] for job in (good, bad)}
    assert cluster.attempts(good) == [Account(good, "COMPLETED", "0:0", node[good])]
    assert cluster.attempts(bad) == [Account(bad, "FAILED", "3:0", node[bad])]


def test_a_requeued_job_restarts_within_seconds_and_is_counted(cluster: Cluster) -> None:
    job = cluster.sbatch(f"{FIRST_ONLY}; scontrol requeue $SLURM_JOB_ID; sleep 60", "--requeue")
    assert cluster.wait(job, "COMPLETED", seconds=30) == "COMPLETED"  # not SLURM's own two minutes
    assert cluster.job(job)["Restarts"] == "1"
    assert states(cluster, job) == ["REQUEUED", "COMPLETED"]


def states(cluster: Cluster, job: str) -> list[str]:
    return [attempt.state for attempt in cluster.attempts(job)]


class Preempted(NamedTuple):
    """A job whose node a higher partition took."""

    output: str
    states: list[str]  # of its attempts


@pytest.fixture(scope="module")
def preempted(cluster: Cluster) -> dict[str, Preempted]:
    """One job for each preemptable partition, both preempted at the same time. Each prints the signals it gets."""
    commands = (
        f"{FIRST_ONLY}; trap 'echo TERM; exit 1' TERM; trap 'echo USR2' USR2; echo begun; sleep 60 & wait"
    )
    saving = "; for i in 1 2 3; do sleep 0.5; done; echo saved; scontrol requeue $SLURM_JOB_ID; sleep 9"
    jobs = {}
    for node, partition in enumerate(("low", "hard"), start=1):
        options = (f"--partition={partition}", f"--nodelist=node{node}", "--requeue", "--signal=B:USR2@60")
        jobs[partition] = cluster.sbatch(commands + saving, *options)
        cluster.wait_for_output(jobs[partition], "begun")
    for job in jobs.values():
        cluster.preempt(job)
    return {partition: ended(cluster, job) for partition, job in jobs.items()}


def ended(cluster: Cluster, job: str) -> Preempted:
    assert cluster.wait(job) == "COMPLETED"
    return Preempted(cluster.output(job), states(cluster, job))


def test_partition_low_sends_a_signal_and_gives_time_to_save(preempted: dict[str, Preempted]) -> None:
    output = preempted["low"].output
    assert output.index("begun") < output.index("USR2") < output.index("saved")
    assert preempted["low"].states[-1] == "COMPLETED"


def test_partition_hard_takes_the_nodes_at_once(preempted: dict[str, Preempted]) -> None:
    assert "saved" not in preempted["hard"].output
    assert preempted["hard"].states == ["PREEMPTED", "COMPLETED"]


class Broken(NamedTuple):
    """A job whose node was lost, after its next attempt on another node has ended."""

    nodes: list[str]  # of the attempt that was lost, and of the next one
    states: list[str]  # of the same
    is_first_alive: bool


@pytest.fixture(scope="module")
def broken(cluster: Cluster) -> dict[str, Broken]:
    """Two jobs at the same time: the node of one loses its power, that of the other its slurmd.

    An attempt that starts before the fault counts, one that starts after it ends at once. It must not depend on the
    number of restarts: on a busy machine a healthy node may be silent for longer than SlurmdTimeout, and SLURM then
    requeues the job before the fault. Its next attempt, which has nothing to count, would be waited for in vain.
    """
    jobs = {}
    for name, fault in {"power": cluster.kill_node, "slurmd": cluster.kill_slurmd}.items():
        mark = cluster.folder / f"fault-{name}"
        counting = f"[ ! -e {mark} ] || exit 0; while echo $((++count)); do sleep 0.2; done"
        jobs[name] = cluster.sbatch(counting, "--requeue", "--exclusive")
        node = counting_node(cluster, jobs[name])
        mark.touch()
        fault(node)
    return {name: after_the_fault(cluster, job) for name, job in jobs.items()}


def counting_node(cluster: Cluster, job: str) -> int:
    """The node on which the job runs, once its output grows there."""

    def grows() -> bool:
        before = cluster.output(job)
        cluster.wait_until(lambda: cluster.output(job) != before, f"job {job} counts")
        return cluster.state(job) == "RUNNING"

    cluster.wait_until(grows, f"job {job} runs and counts")
    return int(cluster.job(job)["NodeList"].removeprefix("node"))


def after_the_fault(cluster: Cluster, job: str) -> Broken:
    assert cluster.wait(job, "COMPLETED") == "COMPLETED"
    attempts = cluster.attempts(job)[-2:]
    return Broken(
        [one.nodes for one in attempts],
        [one.state for one in attempts],
        is_first_alive=is_alive(cluster, job),
    )


def is_alive(cluster: Cluster, job: str) -> bool:
    """Whether an attempt of a job that SLURM considers completed continues to write."""
    if not cluster.processes_of(job):
        return False
    before = cluster.output(job)
    cluster.wait_until(lambda: cluster.output(job) != before, f"job {job} continues to count")
    return True


@pytest.mark.parametrize("fault", ["power", "slurmd"])
def test_a_job_whose_node_is_lost_restarts_on_another(broken: dict[str, Broken], fault: str) -> None:
    assert broken[fault].states == ["NODE_FAIL", "COMPLETED"]
    first, second = broken[fault].nodes
    assert first != second


def test_a_power_failure_ends_all_processes_of_a_node(broken: dict[str, Broken]) -> None:
    assert not broken["power"].is_first_alive


def test_tasks_outlive_their_slurmd_during_the_next_attempt(broken: dict[str, Broken]) -> None:
    assert broken["slurmd"].is_first_alive


@pytest.mark.parametrize(("isolate", "accounting"), [("auto", 1), ("none", 0)])
def test_down_leaves_no_processes_and_files(slurm_is_here: None, isolate: str, accounting: int) -> None:
    hosts = HOSTS.read_text()
    with running_cluster(isolate=isolate, accounting=accounting, nodes=1) as own:
        assert "already up" in own.control("up")
        daemon = "setsid sleep 1000 & echo left"  # a job's process that wants to stay
        own.wait_for_output(own.sbatch(daemon), "left")
        assert processes_of(own)
    assert not own.folder.exists()
    assert not processes_of(own)
    assert HOSTS.read_text() == hosts
    first = int(own.options["TESTCLUSTER_PORT"])
    assert all(is_free(port) for port in range(first, first + 12))
    assert not Path(f"/sys/class/net/tc{first}").exists()
    assert "not up" in own.control("down")


def processes_of(cluster: Cluster) -> list[str]:
    """Processes that were started with the cluster's environment or name its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if str(cluster.folder).encode() in text:
                found.append(process.name)
    return found


def test_commands_without_a_cluster_end_at_once_with_a_message(tmp_path: Path) -> None:
    ended = Started([str(SCRIPT), "status"], {"TESTCLUSTER_DIR": str(tmp_path / "none")}).wait(10)
    assert (ended.status, ended.output) == (1, f"testcluster: not up: {tmp_path / 'none'}\n")
