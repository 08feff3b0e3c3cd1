"""The process of one rank: its output, exit status and exit record."""

import json
import os

import pytest
from harness.processes import run

from lediflow.cluster.jobs import JobFolder, JobRecord

pytestmark = pytest.mark.processes

MODULES = {
    "works": "print('hello')",
    "requests_a_requeue": "import sys; sys.exit(75)",
    "breaks": "raise ValueError('wrong\\nin two lines')",
    "refuses": (
        "import sys\nfrom lediflow.errors import UserError\n"
        "try:\n    raise UserError('data.path is missing')\nexcept UserError:\n    sys.exit(2)"
    ),
    "breaks_with_threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nraise OSError(5, 'no disk')"
    ),
    "prints_its_caches": "import os; print(os.environ['TRITON_CACHE_DIR'], os.environ['TORCHINDUCTOR_CACHE_DIR'])",
    "prints_its_arguments": "import sys; print(sys.argv[1:], __name__)",
}


@pytest.fixture
def task(tmp_path):
    """(module, rank) -> the finished process, its exit record, and the rank's own log."""
    folder = JobFolder(tmp_path / "jobs/demo")
    folder.write(JobRecord(name="demo", command=["none"], run="/runs"))
    folder.log.mkdir()

    def ended(name, rank=0, **variables):
        (tmp_path / f"{name}.py").write_text(MODULES[name])
        folder.write(JobRecord(name="demo", command=[name, "seed=1", "a='b c'"], run="/runs"))
        env = {
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": "1",
            "SLURM_PROCID": str(rank),
            "SLURMD_NODENAME": "gpu03",
        }
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        finished = run(
            "lediflow.cluster.running.task", folder.root, env=env | {"PYTHONPATH": path} | variables
        )
        file = folder.rank_exits("7-1") / f"{rank}.json"
        end = json.loads(file.read_text()) if file.exists() else None
        own = folder.log / f"7-1-rank{rank}.log"
        return finished, end, own.read_text() if own.exists() else None

    return ended


def test_a_command_runs_as_python_would_run_it(task):
    finished, end, _ = task("prints_its_arguments")
    assert finished.output.strip() == "['seed=1', \"a='b c'\"] __main__"
    assert (end["status"], end["error"]) == (finished.status, None) == (0, None)


def test_rank_0_writes_to_the_job_log_and_other_ranks_to_their_own(task):
    assert "hello" in task("works")[0].output
    finished, _, own = task("works", rank=3)
    assert (finished.output, own) == ("", "hello\n")


def test_compiled_kernels_are_kept_on_the_node_unless_a_variable_says_otherwise(task, tmp_path, monkeypatch):
    # torch sets it where it has compiled something
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    finished, _, _ = task("prints_its_caches", TMPDIR=str(tmp_path), TRITON_CACHE_DIR="/mine")
    assert finished.output.split() == ["/mine", f"{tmp_path}/lediflow-{os.getuid()}/inductor"]


def test_a_rank_that_cannot_write_its_exit_record_keeps_its_status(task, tmp_path):
    (tmp_path / "jobs/demo/ends").touch()  # no folder can be made there, as on a full disk
    finished, end, _ = task("refuses")
    assert (finished.status, end) == (2, None)
    assert "data.path is missing" in finished.output


def test_the_exit_status_is_that_of_the_command(task):
    finished, end, _ = task("requests_a_requeue")
    assert (finished.status, end["status"], end["error"]) == (75, 75, None)


def test_a_crash_is_in_the_exit_record_and_not_in_the_log(task):
    finished, end, _ = task("breaks", rank=0)
    assert (finished.status, finished.output) == (1, "")
    assert end["error"] == "ValueError: wrong in two lines"
    assert end["traceback"].endswith("ValueError: wrong\nin two lines\n")
    assert (end["rank"], end["host"]) == (0, "gpu03")


def test_a_refusal_keeps_its_message(task):
    finished, end, _ = task("refuses")
    assert (finished.status, end["error"], end["traceback"]) == (2, "data.path is missing", None)


def test_a_rank_that_crashed_does_not_wait_for_its_threads(task):
    finished, end, _ = task("breaks_with_threads")
    assert (finished.status, end["error"]) == (1, "OSError: [Errno 5] no disk")
