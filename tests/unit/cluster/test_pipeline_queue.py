"""Submitting a plan, with stand-ins for SLURM's commands; tests/cluster has the real ones."""

import pytest

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobRecord, job_folder
from lediflow.cluster.slurm import Queued, queue
from lediflow.cluster.submitting import pipeline_queue
from lediflow.cluster.submitting.pipeline import PipelineJob, plan
from lediflow.cluster.submitting.pipeline_queue import carry_out, foreseen, known_past, requests, table
from lediflow.errors import UserError

# numbers the jobs; refuses the one whose script names what $REFUSED says
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
    monkeypatch.setattr(pipeline_queue, "take_snapshot", lambda runs: tmp_path / "code")
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
    return list(carry_out(plan(jobs, known_past(jobs, place, queue())), place))


def dependencies(place):
    """Of each sbatch, without the path of its script."""
    calls = (place / "calls").read_text().splitlines()
    return [" ".join(call.split()[2:-1]) for call in calls if call.startswith("sbatch")]


def test_each_job_starts_when_those_before_it_have_ended_well(place, jobs):
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


def test_a_refusal_names_the_task_and_the_next_time_goes_on_from_there(place, jobs):
    (place / "refused").write_text("c")
    with pytest.raises(UserError, match=r"task c: sbatch: no.*the same command goes on"):
        submit(jobs, place)
    (place / "refused").unlink()
    (place / "queue").write_text("1|RUNNING|None|n|a|0|\n2|PENDING|Dependency||b|0|\n")
    assert submit(jobs, place) == ["1", "2", "3", "4"]
    assert dependencies(place)[-1].startswith("--dependency=afterok:2:3 ")


def test_a_job_that_waits_in_vain_leaves_the_queue_before_its_successor_comes(place, jobs):
    submit(jobs[:2], place)
    (place / "queue").write_text("2|PENDING|DependencyNeverSatisfied||b|0|\n")
    submit(jobs[:2], place)
    told = (place / "calls").read_text().splitlines()[2:]
    assert [line.split()[0] for line in told] == ["sbatch", "scancel", "sbatch"]
    assert told[1] == "scancel 2"
    assert job_folder("b", place).read().job_ids == ["2", "4"]


def test_the_table_says_what_becomes_of_each_job_and_what_it_waits_for(place, jobs):
    submit(jobs[:2], place)
    job_folder("a", place).note("end", job="1", array_task=None, decision="done", reason="")
    (place / "a").mkdir()
    waiting = [Queued("2", "PENDING", "Dependency", "", "b", 0)]
    steps = plan(jobs, known_past(jobs, place, waiting))
    lines = [line.split("  ") for line in table(steps, carry_out(steps, place))]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["task", "job", "state", "after"],
        ["a", "a", "done"],
        ["b", "b", "queued as 2", "a"],
        ["c", "c", "submitted as 3", "a"],
        ["d", "d", "submitted as 4", "b 2, c 3"],
    ]


def test_what_is_only_foreseen_is_not_submitted(place, jobs):
    steps = plan(jobs, known_past(jobs, place, queue()))
    lines = list(table(steps, foreseen(steps)))
    assert sum("to be submitted" in line for line in lines) == 4
    assert requests(steps)[0] == "a asks for 1 x 1 tasks of 1 cores, 4 GPUs, 9 min"
    assert not (place / "calls").exists()
