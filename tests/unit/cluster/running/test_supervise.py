"""The batch step, as a process, with stand-ins for srun and scontrol; tests/cluster has the real ones."""

import os
import signal
import subprocess
import sys

import pytest
from harness.processes import start

from lediflow.cluster.jobs import JobFolder, JobRecord

pytestmark = pytest.mark.processes

SCONTROL = """#!/bin/sh
echo "$@" >>$CALLS
case "$1 $2" in
    "show hostnames") printf 'node1\\nnode2\\n';;
    "show --oneliner") echo "JobId=7 Restarts=$RESTARTS Requeue=1";;
    requeue*) if [ "$(grep -c requeue $CALLS)" -gt "$SILENT" ]; then kill -KILL $PPID; else exit 1; fi;;
esac
"""
# exit record of a rank, as lediflow.cluster.running.task writes it
END = '{"rank": %d, "host": "node%d", "status": %d, "error": %s, "traceback": %s, "time": %d}'


@pytest.fixture
def supervised(tmp_path):
    """(what srun does in sh, options) -> the supervisor's process, started."""
    folder = JobFolder(tmp_path / "jobs/demo")
    (tmp_path / "scontrol").write_text(SCONTROL)

    def started(srun, run=None, restarts=2, is_whole=False, silent=0, **options):
        whole = "\n".join(f"echo '{END % (rank, 1, 0, 'null', 'null', 1)}' >{rank}.json" for rank in range(4))
        here = f"mkdir -p {folder.rank_exits('7-2')}; cd {folder.rank_exits('7-2')}"
        (tmp_path / "srun").write_text(f"#!/bin/bash\n{here}\n{whole if is_whole else ''}\n{srun}\n")
        for name in ("srun", "scontrol"):
            (tmp_path / name).chmod(0o755)
        folder.write(
            JobRecord(name="demo", command=["none"], run=str(run or tmp_path / "run"), slurm=options)
        )
        folder.log.mkdir(exist_ok=True)
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_GPUS": "0,1",
            "RESTARTS": str(restarts), "SILENT": str(silent),
        }  # fmt: skip
        return folder, start("lediflow.cluster.running.supervise", folder.root, env=env)

    return started


def ends(folder, *lines):
    return "\n".join(f"cat >{folder}/{number}.json <<'EOF'\n{line}\nEOF" for number, line in enumerate(lines))


def calls(folder):
    return [
        line
        for line in (folder.root.parents[1] / "calls").read_text().splitlines()
        if not line.startswith("show")
    ]


def last(folder):
    return folder.attempts()[-1]


def test_a_job_that_is_done_exits_with_0_and_records_start_and_end_of_the_attempt(supervised):
    folder, process = supervised("exit 0", is_whole=True)
    assert process.wait().status == 0
    begin, end = folder.attempts()
    assert (begin["event"], begin["nodes"], begin["ranks"], begin["gpus"]) == (
        "start",
        ["node1", "node2"],
        4,
        4,
    )
    assert (end["event"], end["job"], end["restart"], end["decision"]) == ("end", "7", 2, "done")
    assert calls(folder) == []


def test_every_rank_gets_its_cores_and_a_common_rendezvous(supervised):
    options = {"cpus_per_task": 5, "tasks_per_node": 2, "srun_args": ["--label"]}
    _, process = supervised('echo "$@"; env | grep MASTER', **options)
    output = process.wait().output
    for option in (
        "--kill-on-bad-exit=1",
        "--ntasks=4",
        "--ntasks-per-node=2",
        "--cpus-per-task=5",
        "--label",
    ):
        assert option in output
    assert "MASTER_ADDR=node1" in output
    port = int(output.partition("MASTER_PORT=")[2].split()[0])
    assert 20_000 <= port < 30_000


def test_a_saved_run_is_requeued(supervised, tmp_path):
    saved = ends(tmp_path / "jobs/demo/ends/7-2", END % (0, 1, 79, "null", "null", 1))
    folder, process = supervised(f"{saved}\nexit 143")
    assert process.wait().status == -signal.SIGKILL  # by SLURM
    assert (last(folder)["decision"], calls(folder)) == ("requeue", ["requeue 7"])


def test_a_requeue_is_repeated_if_the_controller_does_not_answer(supervised):
    folder, process = supervised("exit 1", silent=1)
    assert process.wait().status == -signal.SIGKILL  # by SLURM
    assert calls(folder) == ["requeue 7", "requeue 7"]


@pytest.mark.parametrize("status", [0, 75, 1])
def test_a_superseded_attempt_leaves_the_job_to_the_newer_one(supervised, status):
    folder, process = supervised(f"exit {status}", restarts=3, is_whole=True)
    assert process.wait().status == (status or 1)
    assert (last(folder)["decision"], calls(folder)) == ("terminated", [])


def test_a_job_is_not_done_if_srun_lost_a_node_without_an_error(supervised, tmp_path):
    half = ends(
        tmp_path / "jobs/demo/ends/7-2", *[END % (rank, 1, 0, "null", "null", 1) for rank in range(2)]
    )
    folder, process = supervised(f"{half}\nexit 0")
    process.wait()
    assert (last(folder)["decision"], calls(folder)) == ("requeue", ["requeue 7"])


def test_a_run_taken_over_by_another_session_is_left_to_it(supervised, tmp_path):
    lost = ends(tmp_path / "jobs/demo/ends/7-2", END % (0, 1, 82, "null", "null", 1))
    folder, process = supervised(f"{lost}\nexit 82")
    process.wait()
    assert (last(folder)["decision"], calls(folder)) == ("terminated", [])


def test_a_crash_is_reported_once_with_rank_and_traceback(supervised, tmp_path):
    first = END % (1, 2, 1, '"ValueError: wrong"', '"Traceback: the place\\nValueError: wrong"', 1)
    second = END % (0, 1, 1, '"RuntimeError: Connection closed by peer"', '"Traceback: elsewhere"', 2)
    folder, process = supervised(
        f"{ends(tmp_path / 'jobs/demo/ends/7-2', first, second)}\nexit 1", crash_retries=0
    )
    finished = process.wait()
    assert finished.status == 1
    assert "rank 1 on node2 failed:\nTraceback: the place" in finished.output
    assert "elsewhere" not in finished.output
    assert last(folder)["reason"].startswith("rank 1 on node2: ValueError: wrong; it crashed 1 times")


def test_the_node_of_a_killed_rank_is_excluded_from_later_attempts(supervised):
    srun = 'echo "srun: error: node2: task 3: Killed" >&2\nexit 137'
    folder, process = supervised(srun, exclude="node9")
    process.wait()
    assert last(folder)["excluded"] == ["node2"]
    assert calls(folder)[0] == "requeue 7"


def test_a_newer_checkpoint_resets_the_count_of_crashes(supervised, tmp_path):
    for images, decision in (("000000000100", "requeue"), ("000000000200", "requeue")):
        (tmp_path / "run/checkpoints" / images).mkdir(parents=True)
        folder, process = supervised("exit 1", crash_retries=1)
        process.wait()
        assert (last(folder)["decision"], last(folder)["images"]) == (decision, int(images))
    folder, process = supervised("exit 1", crash_retries=1)
    process.wait()
    assert last(folder)["decision"] == "failed"


def test_crashes_of_other_tasks_and_earlier_jobs_do_not_count(supervised, tmp_path):
    folder, process = supervised("exit 1", crash_retries=1)
    for job in ("6", "8_0", "8_1"):
        folder.note("end", job=job, restart=0, is_crash=True, images=None)
    process.wait()
    assert last(folder)["decision"] == "requeue"


def test_a_job_that_slurm_ends_is_not_requeued_by_the_supervisor(supervised):
    folder, process = supervised("trap 'exit 143' TERM\ntouch $CALLS.up\nsleep 30 & wait")
    process.wait_until(lambda: (folder.root.parents[1] / "calls.up").exists())
    os.killpg(process.process.pid, signal.SIGTERM)  # as SLURM does: to all processes of the step
    process.wait()
    assert (last(folder)["decision"], calls(folder)) == ("terminated", [])


def test_warning_signals_do_not_end_the_supervisor(supervised):
    folder, process = supervised("touch $CALLS.up\nsleep 1", is_whole=True)
    process.wait_until(lambda: (folder.root.parents[1] / "calls.up").exists())
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send(number)
    assert process.wait().status == 0


def test_logs_of_ranks_without_output_are_removed(supervised, tmp_path):
    log = tmp_path / "jobs/demo/log"
    folder, process = supervised(f"touch {log}/7-2-rank1.log\necho a word >{log}/7-2-rank3.log")
    process.wait()
    assert [path.name for path in folder.log.iterdir()] == ["7-2-rank3.log"]


def test_the_supervisor_imports_no_large_library():
    code = (
        "import sys, lediflow.cluster.running.supervise; print({'torch', 'numpy', 'hydra'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_an_attempt_whose_end_cannot_be_recorded_is_not_requeued(supervised):
    folder, process = supervised("sleep 1; exit 1")
    process.wait_until(folder.attempts_file.exists)
    folder.attempts_file.unlink()
    folder.attempts_file.symlink_to(folder.root / "nowhere/file")  # cannot be written, as on a full disk
    finished = process.wait()
    assert finished.status == 1
    assert "attempts.jsonl is not written" in finished.output
    assert calls(folder) == []
