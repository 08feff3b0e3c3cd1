"""The sbatch script, as bash and sbatch read it, and the copy of the code that a job runs."""

import dataclasses
import os
import subprocess
import sys

import pytest

from lediflow.cluster.jobs import JobFolder, JobRecord, SlurmConfig
from lediflow.cluster.submitting.submission import copy_code, render, write_script


@pytest.fixture
def folder(tmp_path):
    return JobFolder(tmp_path / "runs of mine/jobs/demo.flow")


def record(**more):
    return JobRecord(
        name="demo.flow", command=["lediflow.train"], run="/runs/demo/flow", folder="/home/me", **more
    )


def options(text):
    return dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines() if line.startswith("#SBATCH")
    )  # fmt: skip


def test_a_percent_sign_in_a_folder_is_taken_literally(tmp_path):
    found = options(render(JobFolder(tmp_path / "runs/jobs/50%j"), record(), SlurmConfig()))
    assert found["output"].endswith("/50%%j/log/%j.log")


def test_unset_values_are_not_in_the_script(folder):
    found = options(render(folder, record(), SlurmConfig()))
    assert found.keys() == {
        "nodes", "job-name", "chdir", "output", "open-mode", "ntasks-per-node", "cpus-per-task", "signal", "requeue",
    }  # fmt: skip
    assert found["open-mode"] == "append"


@pytest.mark.parametrize(
    "config, name, value",
    [
        ({"partition": "gpu"}, "partition", "gpu"),
        ({"account": "me"}, "account", "me"),
        ({"qos": "long"}, "qos", "long"),
        ({"constraint": "a100&nvlink"}, "constraint", "'a100&nvlink'"),
        ({"reservation": "course"}, "reservation", "course"),
        ({"exclude": "gpu[07,12]"}, "exclude", "'gpu[07,12]'"),
        ({"gpus_per_node": 4}, "gres", "gpu:4"),
        ({"mem_gb": 1.5}, "mem", "1536M"),
        ({"timeout_min": 90}, "time", "90"),
        ({"requeue": False}, "no-requeue", ""),
        ({"additional_parameters": {"mail-type": "END"}}, "mail-type", "END"),
        ({"additional_parameters": {"exclusive": True}}, "exclusive", ""),
        ({"timeout_min": 1440}, "signal", "USR2@120"),
        ({"timeout_min": 2}, "signal", "USR2@12"),  # not at the start of a short job
    ],
)
def test_each_value_becomes_an_option_of_sbatch(folder, config, name, value):
    assert options(render(folder, record(), SlurmConfig(**config)))[name] == value


def test_an_array_is_throttled(folder):
    found = options(render(folder, record(array=8), SlurmConfig(array_parallelism=3)))
    assert found["array"] == "0-7%3"
    assert found["output"].endswith("log/%A_%a.log'")


def run_by_bash(folder, config):
    """Output of the script's shell part, with a stand-in for Python that prints its arguments and environment."""
    python = folder.root.parent / "python of mine"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; env')
    python.chmod(0o755)
    text = render(folder, record(snapshot="/code of mine"), config, python=str(python))
    return subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_the_script_ends_in_the_supervisor_with_the_copy_of_the_code(folder):
    lines = run_by_bash(folder, SlurmConfig(cpus_per_task=7))
    assert lines[:4] == ["-u", "-m", "lediflow.cluster.running.supervise", str(folder.root)]
    (path,) = (line for line in lines if line.startswith("PYTHONPATH="))
    assert path.partition(":")[0] == "PYTHONPATH=/code of mine"
    assert "OMP_NUM_THREADS=7" in lines


def test_setup_lines_and_variables_come_first_and_the_users_take_precedence(folder):
    config = SlurmConfig(
        setup=["export FROM_SETUP=here"],
        environment={"OMP_NUM_THREADS": "2", "NAME": "two words"},
        interface="ib0",
    )
    lines = run_by_bash(folder, config)
    expected = {
        "FROM_SETUP=here",
        "OMP_NUM_THREADS=2",
        "NAME=two words",
        "NCCL_SOCKET_IFNAME=ib0",
        "GLOO_SOCKET_IFNAME=ib0",
    }
    assert expected <= {*lines}


def test_the_script_is_executable_and_the_folder_of_its_log_exists(folder):
    path = write_script(folder, record(), SlurmConfig())
    assert path.stat().st_mode & 0o100
    assert folder.log.is_dir()
    assert path.read_text() == render(folder, record(), SlurmConfig())


def test_a_record_is_read_as_it_was_written(folder):
    written = record(job_ids=["7"], after=["a"], slurm=dataclasses.asdict(SlurmConfig(qos="x")))
    folder.write(written)
    assert folder.read() == written
    assert SlurmConfig(**folder.read().slurm) == SlurmConfig(qos="x")


# --- the copy of the code


@pytest.fixture
def checkout(tmp_path):
    """A small project of the same shape."""
    root = tmp_path / "checkout"
    for name, text in {
        "lediflow/__init__.py": "",
        "lediflow/a.py": "print(1)\n",
        "conf/train.yaml": "x: 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.processes
def test_edits_in_the_checkout_do_not_change_the_copy(checkout, tmp_path):
    snapshot = copy_code(tmp_path / "runs", checkout)
    (checkout / "lediflow/a.py").write_text("print(2)\n")
    env = os.environ | {"PYTHONPATH": str(snapshot)}
    ended = subprocess.run(
        [sys.executable, "-m", "lediflow.a"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.stdout == "1\n"
    assert (snapshot / "conf/train.yaml").read_text() == "x: 1\n"


def test_the_same_code_is_copied_once_and_other_code_to_another_folder(checkout, tmp_path):
    first = copy_code(tmp_path / "runs", checkout)
    (checkout / "lediflow/__pycache__").mkdir()
    (checkout / "lediflow/__pycache__/a.pyc").write_bytes(b"made by Python")
    assert copy_code(tmp_path / "runs", checkout) == first
    (checkout / "conf/train.yaml").write_text("x: 2\n")
    second = copy_code(tmp_path / "runs", checkout)
    assert second != first
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, second.name])


def test_the_copy_of_the_project_has_its_commands_and_configuration(tmp_path):
    snapshot = copy_code(tmp_path)
    assert (snapshot / "lediflow/train.py").is_file()
    assert (snapshot / "conf/train.yaml").is_file() or (snapshot / "lediflow/conf/train.yaml").is_file()
