"""The plan of a pipeline, from what is known of its jobs."""

from dataclasses import replace

import pytest

from lediflow.cluster.jobs import JobRecord, SlurmConfig
from lediflow.cluster.slurm import Queued
from lediflow.cluster.submitting.pipeline import Action, Past, PipelineJob, plan
from lediflow.errors import UserError

DONE, KEEP, SUBMIT = Action.DONE, Action.KEEP, Action.SUBMIT


def job(name, *after, is_trained=False, array=None):
    command = "encode" if array else "train" if name in ("auxiliary", "flow", "sampler") else name
    record = JobRecord(
        name=name, command=[f"lediflow.{command}", "x=1"], run=f"/{name}", after=[*after], array=array
    )
    return PipelineJob(name, record, SlurmConfig(), is_trained)


def chain(*trained):
    """prepare -> encode (two tasks) -> auxiliary -> {flow, sampler} -> evaluate; some trainings are finished."""
    return [
        job("prepare"),
        job("encode", "prepare", array=2),
        *(job(name, after, is_trained=name in trained) for name, after in TRAININGS.items()),
        job("evaluate", "flow", "sampler"),
    ]


TRAININGS = {"auxiliary": "encode", "flow": "auxiliary", "sampler": "auxiliary"}


def end(decision, task=None, job="1", restart=0):
    where = {"job": job if task is None else f"{job}_{task}", "array_task": task, "restart": restart}
    return {"event": "end", **where, "decision": decision, "reason": "because"}


def past(of, *lines, queued=(), submitted="2026-01-01", has_output=True, **changes):
    record = replace(of.record, job_ids=["1"], submitted=submitted, **changes)
    return Past(record, lines, queued, has_output)


def entry(state, reason="Dependency", job="1"):
    return Queued(job, state, reason, "", "name", 0)


def well(of, **more):
    tasks = range(of.record.array) if of.record.array else [None]
    return past(of, *(end("done", task) for task in tasks), **more)


def actions(jobs, pasts):
    return [step.action for step in plan(jobs, pasts)]


def test_a_new_pipeline_is_submitted_as_a_whole():
    assert actions(chain(), {}) == [SUBMIT] * 6


def test_jobs_that_are_done_are_not_submitted_again():
    jobs = chain(*TRAININGS)
    assert actions(jobs, {one.name: well(one) for one in jobs}) == [DONE] * 6


def test_jobs_that_are_pending_or_running_are_left_alone():
    jobs = chain()
    pasts = {one.name: past(one, queued=[entry("PENDING")]) for one in jobs[3:]}
    pasts |= {one.name: well(one) for one in jobs[:2]}
    pasts["auxiliary"] = past(jobs[2], end("requeue"), queued=[entry("RUNNING", "None")])
    assert actions(jobs, pasts) == [DONE, DONE, KEEP, KEEP, KEEP, KEEP]


def test_a_failed_job_is_submitted_again_with_its_dependents_and_nothing_else():
    jobs = chain("auxiliary", "flow")
    pasts = {one.name: well(one) for one in jobs[:4]}
    pasts |= {"sampler": past(jobs[4], end("failed")), "evaluate": past(jobs[5])}
    steps = plan(jobs, pasts)
    assert [step.action for step in steps] == [DONE, DONE, DONE, DONE, SUBMIT, SUBMIT]
    assert [step.why_again for step in steps[4:]] == ["failed: because", ""]


@pytest.mark.parametrize(
    "lines, why",
    [
        ([end("stopped")], "stopped: because"),
        ([end("terminated")], "terminated: because"),
        (
            [end("requeue"), {"event": "start", "job": "1", "array_task": None, "restart": 0}],
            "lost: it ended without a record",
        ),
        ([end("failed", job="0")], ""),  # of the submission before; the last one was never started
    ],
)
def test_a_repeated_submission_shows_how_the_last_one_ended(lines, why):
    prepare = job("prepare")
    (step,) = plan([prepare], {"prepare": past(prepare, *lines)})
    assert (step.action, step.why_again) == (SUBMIT, why)


@pytest.mark.parametrize(
    "changes",
    [
        {"has_output": False},
        {"command": ["lediflow.prepare", "x=2"]},
        {"submitted": "2025-12-31"},  # what it builds on was made again since
    ],
    ids=["output gone", "other options", "older than its parent"],
)
def test_an_output_counts_only_if_it_is_current(changes):
    jobs = [job("prepare"), job("evaluate", "prepare")]
    pasts = {"prepare": well(jobs[0], submitted="2026-01-01"), "evaluate": well(jobs[1], **changes)}
    assert actions(jobs, pasts) == [DONE, SUBMIT]


def test_a_submission_that_slurm_refused_is_not_done():
    prepare = job("prepare")
    assert actions([prepare], {"prepare": well(prepare, submitted="")}) == [SUBMIT]


def test_an_array_is_done_when_all_of_its_tasks_are_done():
    encode = job("encode", array=2)
    assert actions([encode], {"encode": past(encode, end("done", 0))}) == [SUBMIT]
    retried = past(encode, end("requeue", 0), end("done", 1), end("done", 0))
    assert actions([encode], {"encode": retried}) == [DONE]


def test_the_end_record_of_a_superseded_attempt_does_not_count():
    prepare = job("prepare")
    lines = [end("done", restart=1), end("terminated", restart=0)]
    assert actions([prepare], {"prepare": past(prepare, *lines)}) == [DONE]


def test_an_array_with_a_failed_task_is_replaced():
    encode = job("encode", array=2)
    running = past(encode, end("failed", 0), queued=[entry("RUNNING", "None", "1_1")])
    (step,) = plan([encode], {"encode": running})
    assert (step.action, step.queued_as) == (SUBMIT, "1")


def test_a_job_whose_dependency_is_submitted_again_is_submitted_again():
    jobs = chain()[:3]
    pasts = {"encode": past(jobs[1], queued=[entry("PENDING", job="1_[0-1]")])}
    steps = plan(jobs, pasts)
    assert [step.action for step in steps] == [SUBMIT] * 3
    assert [step.queued_as for step in steps] == [None, "1", None]


def test_a_job_that_waits_for_an_earlier_submission_is_submitted_again():
    jobs = [job("prepare"), job("evaluate", "prepare")]
    resumed = past(jobs[0], submitted="2026-01-02", queued=[entry("RUNNING", "None")])
    waiting = past(jobs[1], queued=[entry("PENDING")])
    assert actions(jobs, {"prepare": resumed, "evaluate": waiting}) == [KEEP, SUBMIT]


def test_a_job_whose_dependency_can_never_be_met_is_submitted_again():
    jobs = [job("auxiliary", is_trained=True), job("flow", "auxiliary")]
    waiting = past(jobs[1], queued=[entry("PENDING", "DependencyNeverSatisfied")])
    assert actions(jobs, {"flow": waiting}) == [DONE, SUBMIT]


def test_a_running_training_is_never_cancelled():
    jobs = [job("auxiliary"), job("flow", "auxiliary")]
    assert actions(jobs, {"flow": past(jobs[1], queued=[entry("RUNNING", "None")])}) == [SUBMIT, KEEP]


def test_jobs_after_one_that_is_submitted_again_are_not_done():
    jobs = chain("flow", "sampler")
    pasts = {one.name: well(one) for one in jobs}
    assert actions(jobs, pasts) == [DONE, DONE, SUBMIT, SUBMIT, SUBMIT, SUBMIT]


def test_a_job_in_the_queue_with_other_options_is_refused():
    flow = job("flow")
    there = past(flow, queued=[entry("RUNNING")], command=["lediflow.train", "x=2"])
    with pytest.raises(
        UserError, match=r"task flow: .* as job 1 with x=2, but the request has x=1.*cancel flow"
    ):
        plan([flow], {"flow": there})
