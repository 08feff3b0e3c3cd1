"""Execution of a plan, with stand-ins for SLURM's commands; tests/cluster has the real ones."""

import pytest

from lediflow.cluster.jobs import JobRecord, SlurmConfig, job_folder
from lediflow.cluster.slurm import Queued, queue
from lediflow.cluster.submitting.pipeline import (
    PipelineJob,
    carry_out,
    dry_run,
    known_past,
    plan,
    plan_table,
    requests,
)
from lediflow.errors import UserError

# numbers the jobs; refuses the one whose name is in $PLACE/refused
SBATCH = """#!/bin/bash
echo "sbatch $*" >>$PLACE/calls
[ -e $PLACE/refused ] && grep -q "job-name=$(cat $PLACE/refused)$" "${!#}" && { echo "sbatch: error: no" >&2; exit 1; }
echo x >>$PLACE/count; wc -l <$PLACE/count
"""
SQUEUE = "#!/bin/sh\ncat $PLACE/queue 2>/dev/null; true\n"
SCANCEL = '#!/bin/sh\necho "scancel $*" >>$PLACE/calls; rm $PLACE/queue\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PLACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def jobs(place):
    """a -> {b, c} -> d"""
    return [job(place, *names) for names in (["a"], ["b", "a"], ["c", "a"], ["d", "b", "c"])]


def job(place, name, *after):
    record = JobRecord(
        name=name, command=["lediflow.prepare"], run=str(place / name), folder=str(place), after=[*after]
    )
    return PipelineJob(name, record, SlurmConfig(gpus_per_node=4, timeout_min=9))


def submit(jobs, place):
    return list(carried_out(plan(jobs, known_past(jobs, place, queue())), place))


def carried_out(steps, place):
    """As `carry_out`, without copying the project's code."""
    return carry_out(steps, place, copy=lambda runs: place / "code")


def dependencies(place):
    """The dependency options of each sbatch."""
    calls = (place / "calls").read_text().splitlines()
    return [" ".join(call.split()[2:-1]) for call in calls if call.startswith("sbatch")]


def test_each_job_waits_for_the_success_of_its_dependencies(place, jobs):
    assert submit(jobs, place) == ["1", "2", "3", "4"]
    kill = "--kill-on-invalid-dep=yes"
    assert dependencies(place) == [
        "",
        f"--dependency=afterok:1 {kill}",
        f"--dependency=afterok:1 {kill}",
        f"--dependency=afterok:2:3 {kill}",
    ]
    record = job_folder("d", place).read()
    assert (record.after, record.job_ids, record.snapshot) == (["b", "c"], ["4"], str(place / "code"))


def test_a_refusal_names_the_task_and_the_same_command_continues_from_there(place, jobs):
    (place / "refused").write_text("c")
    with pytest.raises(UserError, match=r"task c: sbatch: no.*the same command continues"):
        submit(jobs, place)
    (place / "refused").unlink()
    (place / "queue").write_text("1|RUNNING|None|n|a|0|\n2|PENDING|Dependency||b|0|\n")
    assert submit(jobs, place) == ["1", "2", "3", "4"]
    assert dependencies(place)[-1].startswith("--dependency=afterok:2:3 ")


def test_a_job_that_can_never_start_is_cancelled_before_it_is_submitted_again(place, jobs):
    submit(jobs[:2], place)
    (place / "queue").write_text("2|PENDING|DependencyNeverSatisfied||b|0|\n")
    submit(jobs[:2], place)
    calls = (place / "calls").read_text().splitlines()[2:]
    assert [line.split()[0] for line in calls] == ["sbatch", "scancel", "sbatch"]
    assert calls[1] == "scancel 2"
    assert job_folder("b", place).read().job_ids == ["2", "4"]


def test_the_table_shows_the_action_and_the_dependencies_of_each_job(place, jobs):
    submit(jobs[:2], place)
    job_folder("a", place).note("end", job="1", array_task=None, decision="done", reason="")
    (place / "a").mkdir()
    waiting = [Queued("2", "PENDING", "Dependency", "", "b", 0)]
    steps = plan(jobs, known_past(jobs, place, waiting))
    lines = [line.split("  ") for line in plan_table(steps, carried_out(steps, place))]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["task", "job", "state", "after"],
        ["a", "a", "done"],
        ["b", "b", "queued as 2", "a"],
        ["c", "c", "submitted as 3", "a"],
        ["d", "d", "submitted as 4", "b 2, c 3"],
    ]


def test_a_dry_run_submits_nothing(place, jobs):
    steps = plan(jobs, known_past(jobs, place, queue()))
    lines = list(plan_table(steps, dry_run(steps)))
    assert sum("to be submitted" in line for line in lines) == 4
    assert requests(steps)[0] == "a asks for 1 x 1 tasks of 1 cores, 4 GPUs, 9 min"
    assert not (place / "calls").exists()
