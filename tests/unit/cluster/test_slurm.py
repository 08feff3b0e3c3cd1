"""SLURM's answers, from stand-ins for its commands with output as that of the real ones (22.05)."""

import pytest

from lediflow.cluster import slurm
from lediflow.cluster.slurm import Accounted, Queued, SlurmError, expanded, is_of, outside_jobs


@pytest.fixture
def command(tmp_path, monkeypatch):
    """(name, what it prints, status) -> a command of that name on the path."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def stand_in(name, stdout="", stderr="", status=0):
        path = tmp_path / name
        path.write_text(
            f"#!/bin/sh\ncat <<'EOF'\n{stdout}\nEOF\ncat >&2 <<'EOF'\n{stderr}\nEOF\nexit {status}\n"
        )
        path.chmod(0o755)

    return stand_in


def test_the_queue_is_parsed(command):
    command("squeue", "7|RUNNING|None|gpu[03-04]|demo.flow|2|\n8_[0-3]|PENDING|Dependency||demo encode|0|")
    assert slurm.queue() == [
        Queued("7", "RUNNING", "None", "gpu[03-04]", "demo.flow", 2),
        Queued("8_[0-3]", "PENDING", "Dependency", "", "demo encode", 0),
    ]


def test_the_queue_of_some_jobs_includes_the_tasks_of_their_arrays(command):
    rows = [
        "7|RUNNING|None|n1|a|0|",
        "8_1|RUNNING|None|n1|b|0|",
        "8_[2-3]|PENDING|None||b|0|",
        "9|PENDING|None||c|0|",
    ]
    command("squeue", "\n".join(rows))
    assert [entry.job for entry in slurm.queue(["8"])] == ["8_1", "8_[2-3]"]
    assert [entry.job for entry in slurm.queue(["8_1", "9"])] == ["8_1", "9"]


def test_the_accounting_is_parsed(command):
    command(
        "sacct",
        "7|REQUEUED|0:0|61|billing=4,cpu=4,gres/gpu=4,node=2|gpu[03-04]|2026-01-01T10:00:00|2026-01-01T10:01:01\n"
        "7|CANCELLED by 1000|0:15|9|cpu=4|gpu03|2026-01-01T10:02:00|2026-01-01T10:02:09",
    )
    assert slurm.accounting(["7"]) == [
        Accounted("7", "REQUEUED", 0, 0, 61, 4, "gpu[03-04]", "2026-01-01T10:00:00", "2026-01-01T10:01:01"),
        Accounted("7", "CANCELLED", 0, 15, 9, 0, "gpu03", "2026-01-01T10:02:00", "2026-01-01T10:02:09"),
    ]


@pytest.mark.parametrize(
    "message, option",
    [
        ("sbatch: error: invalid partition specified: nope", "slurm.partition"),
        ("sbatch: error: Invalid account or account/partition combination specified", "slurm.account"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "slurm.qos"),
        ("sbatch: error: Batch job submission failed: Invalid feature specification", "slurm.constraint"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "slurm.nodes"),
        ("sbatch: error: Memory specification can not be satisfied", "slurm.mem_gb"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         "slurm.timeout_min"),
    ],
)  # fmt: skip
def test_a_refusal_has_slurms_own_message_once_and_the_option_to_change(command, message, option):
    command("sbatch", stderr=f"{message}\n{message}", status=1)
    with pytest.raises(SlurmError) as refused:
        slurm.sbatch("job.sh")
    sentence = message.removeprefix("sbatch: error: ")
    assert str(refused.value).count(sentence) == 1
    assert option in str(refused.value)


def test_a_machine_without_slurm_gets_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"squeue is not installed here.*torchrun"):
        slurm.queue()


def test_jobs_submitted_inside_a_job_do_not_inherit_its_options():
    env = {
        "SLURM_JOB_ID": "7",
        "SBATCH_PARTITION": "x",
        "SRUN_CPUS_PER_TASK": "4",
        "SLURM_CONF": "/etc/c",
        "HOME": "/h",
    }
    assert outside_jobs(env) == {"SLURM_CONF": "/etc/c", "HOME": "/h"}


@pytest.mark.parametrize(
    "entry, job, answer",
    [
        ("7", "7", True), ("7", "8", False), ("7_1", "7_1", True), ("7_1", "7", False), ("7", "7_1", False),
        ("7_[0-3,7%2]", "7_3", True), ("7_[0-3,7%2]", "7_4", False), ("7_[0-3,7%2]", "7", False),
        ("17_[0-3]", "7_1", False), ("7_[0-3,...]", "7_90", True),
    ],
)  # fmt: skip
def test_ids_in_slurms_output_cover_jobs_and_tasks(entry, job, answer):
    assert is_of(entry, job) is answer


def test_lists_of_tasks_are_expanded():
    assert expanded("[0-3,7%2]") == {0, 1, 2, 3, 7}
