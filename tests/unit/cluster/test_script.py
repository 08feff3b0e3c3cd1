"""The sbatch script, as bash and sbatch read it."""

import dataclasses
import subprocess

import pytest

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.submitting.script import render, write_script


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


def test_a_percent_sign_in_a_folder_is_no_pattern_of_slurm(tmp_path):
    found = options(render(JobFolder(tmp_path / "runs/jobs/50%j"), record(), SlurmConfig()))
    assert found["output"].endswith("/50%%j/log/%j.log")


def test_only_what_was_chosen_is_asked_for(folder):
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
def test_each_option_becomes_sbatch_s(folder, config, name, value):
    assert options(render(folder, record(), SlurmConfig(**config)))[name] == value


def test_an_array_is_throttled(folder):
    found = options(render(folder, record(array=8), SlurmConfig(array_parallelism=3)))
    assert found["array"] == "0-7%3"
    assert found["output"].endswith("log/%A_%a.log'")


def run_by_bash(folder, config):
    """What the shell's part does, with a stand-in for Python that tells its arguments and environment."""
    speak = folder.root.parent / "python of mine"
    speak.parent.mkdir(parents=True)
    speak.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; env')
    speak.chmod(0o755)
    text = render(folder, record(snapshot="/code of mine"), config, python=str(speak))
    return subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_bash_ends_in_the_supervisor_with_the_copy_of_the_code(folder):
    lines = run_by_bash(folder, SlurmConfig(cpus_per_task=7))
    assert lines[:4] == ["-u", "-m", "lediflow.cluster.running.supervise", str(folder.root)]
    (path,) = (line for line in lines if line.startswith("PYTHONPATH="))
    assert path.partition(":")[0] == "PYTHONPATH=/code of mine"
    assert "OMP_NUM_THREADS=7" in lines


def test_setup_lines_and_variables_come_before_it_and_yours_win(folder):
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


def test_the_script_is_there_with_a_place_for_its_log(folder):
    path = write_script(folder, record(), SlurmConfig())
    assert path.stat().st_mode & 0o100
    assert folder.log.is_dir()
    assert path.read_text() == render(folder, record(), SlurmConfig())


def test_a_record_is_read_as_it_was_written(folder):
    written = record(job_ids=["7"], after=["a"], slurm=dataclasses.asdict(SlurmConfig(qos="x")))
    folder.write(written)
    assert folder.read() == written
    assert SlurmConfig(**folder.read().slurm) == SlurmConfig(qos="x")
