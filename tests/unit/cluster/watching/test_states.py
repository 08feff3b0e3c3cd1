"""The state of a job from what SLURM, its supervisor and its run folder say."""

import time
from datetime import UTC, datetime

import pytest

from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.slurm import Accounted, Queued
from lediflow.cluster.watching.run_facts import RunFacts
from lediflow.cluster.watching.states import JobFacts, JobState, StateKind, array_state, job_state, run_state
from lediflow.engine.lease import LeaseRecord

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()


def at(seconds_ago):
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat()


def local(seconds_ago):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW - seconds_ago))


def started(seconds_ago=600, restart=0):
    return {
        "time": at(seconds_ago),
        "event": "start",
        "job": "7",
        "restart": restart,
        "nodes": ["n1"],
        "gpus": 4,
    }


def ended(decision, reason="a reason", seconds_ago=10, restart=0):
    return {
        "time": at(seconds_ago), "event": "end", "job": "7", "restart": restart, "decision": decision, "reason": reason
    }  # fmt: skip


def queued(state, reason="None", restarts=0, job="7"):
    return Queued(job, state, reason, "n[1-2]", "demo", restarts)


def account(state, seconds_ago=10):
    return Accounted("7", state, 1, 0, 600, 4, "n[1-2]", local(700), local(seconds_ago))


def lease(restart=0, is_given_back=False, job="7"):
    return LeaseRecord(
        token="t", job=job, restart=restart, host="n1", machine="another", pid=5, interval=5.0, taken=NOW - 500,
        renewed=NOW, is_given_back=is_given_back,
    )  # fmt: skip


def state(others=None, command="train", after=(), requeue=True, **evidence):
    record = JobRecord(
        name="demo", command=[f"lediflow.{command}"], run="/runs/demo", job_ids=["6", "7"], after=[*after],
        slurm={"requeue": requeue},
    )  # fmt: skip
    return job_state(JobFacts(record=record, now=NOW, **evidence), others)


# --- in the queue


@pytest.mark.parametrize(
    "reason, words",
    [
        ("Priority", "pending: waits for its turn: other jobs have a higher priority"),
        ("Resources", "pending: waits for free nodes"),
        ("JobHeldUser", "held: `scontrol release 7` releases it"),
        ("launch_failed_requeued_held", "held: `scontrol release 7` releases it"),
        (
            "QOSMaxJobsPerUserLimit",
            "pending: waits for a limit of its quality of service (QOSMaxJobsPerUserLimit)",
        ),
        ("ReqNodeNotAvail,_UnavailableNodes:n1", "pending: waits for nodes that are down or reserved"),
        ("SomethingNew", "pending (SomethingNew)"),
        ("None", "pending"),
    ],
)
def test_a_pending_job_shows_what_it_waits_for(reason, words):
    assert state(queued=queued("PENDING", reason)) == JobState(StateKind.PENDING, words)


def test_a_dependent_job_names_the_dependencies_that_are_not_done():
    others = {"encode": StateKind.DONE, "auxiliary": StateKind.RUNNING}
    found = state(others, after=["encode", "auxiliary"], queued=queued("PENDING", "Dependency"))
    assert found.words == "pending: waits for auxiliary"


def test_a_job_with_a_failed_dependency_names_the_one_to_resume():
    others = {"encode": StateKind.DONE, "auxiliary": StateKind.FAILED}
    found = state(others, after=["encode", "auxiliary"], queued=queued("PENDING", "DependencyNeverSatisfied"))
    assert found.words == "never starts: auxiliary did not succeed; `lediflow.status resume` that"


def test_a_requeued_job_shows_how_often_and_why():
    found = state(
        attempts=[started(), ended("requeue", "the state is saved")], queued=queued("PENDING", "BeginTime", 3)
    )
    assert found.kind is StateKind.PENDING
    assert found.words.startswith(
        "requeued 3 times, last time: the state is saved; pending: waits for SLURM to restart it"
    )


def test_a_running_job_shows_since_when_and_where():
    run = RunFacts(lease=lease(restart=1), quiet_seconds=3)
    found = state(attempts=[started(700), started(restart=1)], queued=queued("RUNNING", restarts=1), run=run)
    assert found == JobState(StateKind.RUNNING, "running for 10 min on n[1-2]; requeued once")


def test_a_job_whose_ranks_have_no_lease_yet_is_starting():
    earlier = RunFacts(lease=lease(restart=0), quiet_seconds=3)
    for attempts, words in (
        ([], "starting on n[1-2]"),
        ([started(restart=1)], "starting for 10 min on n[1-2]"),
    ):
        found = state(attempts=attempts, queued=queued("RUNNING", restarts=1), run=earlier)
        assert found.words == f"{words}; requeued once"


def test_a_command_without_a_lease_is_running_from_its_start():
    found = state(command="encode", attempts=[started()], queued=queued("RUNNING"))
    assert found.words == "running for 10 min on n[1-2]"


def test_a_running_job_whose_lease_is_not_renewed_is_without_a_sign_of_life():
    found = state(
        attempts=[started()], queued=queued("RUNNING"), run=RunFacts(lease=lease(), quiet_seconds=300)
    )
    assert (
        "running for 10 min on n[1-2] according to SLURM, but without a sign of life for 5 min" in found.words
    )


@pytest.mark.parametrize("decision", ["requeue", "done"])
def test_a_job_that_leaves_its_nodes_is_ending(decision):
    found = state(attempts=[started(), ended(decision)], queued=queued("COMPLETING"))
    assert found == JobState(StateKind.RUNNING, "ending: a reason")


# --- no longer in the queue


def test_a_job_is_done_by_its_supervisors_record_or_by_the_exported_weights():
    assert state(attempts=[started(), ended("done")], accounts=[account("COMPLETED")]).kind is StateKind.DONE
    assert state(run=RunFacts(total_images=100, exported_images=100)).kind is StateKind.DONE
    assert state(run=RunFacts(total_images=200, exported_images=100)).kind is not StateKind.DONE


@pytest.mark.parametrize("decision, kind", [("failed", StateKind.FAILED), ("stopped", StateKind.STOPPED)])
@pytest.mark.parametrize("slurm_state", ["FAILED", "CANCELLED", "NODE_FAIL"])
def test_the_supervisors_decision_takes_precedence_over_slurms_state(decision, kind, slurm_state):
    found = state(attempts=[started(), ended(decision)], accounts=[account(slurm_state)])
    assert found == JobState(kind, f"{decision}: a reason; `lediflow.status resume` continues")


@pytest.mark.parametrize("slurm_state", ["NODE_FAIL", "PREEMPTED", "REQUEUED"])
def test_a_lost_job_is_pending_while_slurm_may_be_requeueing_it(slurm_state):
    lost = {"attempts": [started()], "accounts": [account(slurm_state)]}
    assert state(**lost).kind is StateKind.PENDING
    assert "SLURM is requeueing it" in state(**lost).words
    assert state(**lost, requeue=False).kind is StateKind.FAILED
    late = state(attempts=[started()], accounts=[account(slurm_state, seconds_ago=3600)])
    assert late.kind is StateKind.FAILED
    assert "resume" in late.words


def test_a_requeue_that_slurm_does_not_show_yet_is_not_an_end():
    assert state(attempts=[started(), ended("requeue", seconds_ago=5)]).kind is StateKind.PENDING
    late = state(attempts=[started(), ended("requeue", seconds_ago=5000)], accounts=[account("FAILED")])
    assert late.words == "not requeued: a reason; `lediflow.status resume` continues"


@pytest.mark.parametrize(
    "slurm_state, words",
    [
        (
            "FAILED",
            "lost: it ended without a record, as after a reboot of its node; `lediflow.status resume` continues",
        ),
        ("OUT_OF_MEMORY", "slurm.mem_gb"),
        ("TIMEOUT", "its time limit came before it could save"),
    ],
)
def test_a_job_without_an_end_record_has_failed_with_slurms_reason(slurm_state, words):
    found = state(attempts=[started()], accounts=[account(slurm_state)])
    assert found.kind is StateKind.FAILED
    assert words in found.words


def test_cancelled_by_a_user_differs_from_cancelled_with_a_failed_dependency():
    assert state(attempts=[started()], accounts=[account("CANCELLED")]).words.startswith("cancelled;")
    assert state(accounts=[account("CANCELLED")]).words.startswith("cancelled before it started")
    others = {"auxiliary": StateKind.CANCELLED, "encode": StateKind.FAILED}
    found = state(others, before=["auxiliary", "encode"], accounts=[account("CANCELLED")])
    assert found == JobState(
        StateKind.CANCELLED,
        "not started: encode did not succeed; `lediflow.status resume encode` resumes this one too",
    )


def test_a_run_that_continues_after_slurm_gave_it_up_is_running():
    found = state(
        attempts=[started()], accounts=[account("NODE_FAIL")], run=RunFacts(lease=lease(), quiet_seconds=1)
    )
    assert found.kind is StateKind.RUNNING
    assert "outside the queue, by SLURM job 7, process 5 on n1" in found.words


def test_the_end_record_of_a_superseded_attempt_is_ignored():
    attempts = [started(), started(restart=1), ended("failed", restart=1), ended("terminated")]
    assert state(attempts=attempts).words == "failed: a reason; `lediflow.status resume` continues"
    assert state(attempts=[*attempts[:2], attempts[3]]).words.startswith("lost: it ended without a record")


def test_without_slurm_the_records_alone_give_the_state():
    found = state(is_slurm_known=False, attempts=[started()])
    assert found == JobState(StateKind.UNKNOWN, "started, 10 min ago; SLURM does not answer")
    assert state(is_slurm_known=False, attempts=[started(), ended("failed")]).kind is StateKind.FAILED


# --- runs without a job


def test_the_state_of_a_run_started_by_hand_comes_from_its_folder():
    assert (
        run_state(RunFacts(lease=lease(), quiet_seconds=1)).words == "running, SLURM job 7, process 5 on n1"
    )
    assert run_state(RunFacts(total_images=9, exported_images=9)).words == "done"
    left = lease(is_given_back=True)
    begun = RunFacts(lease=left, events=[{"event": "start", "images_seen": 0}])
    assert run_state(begun).words == "stopped; the same command continues"
    assert run_state(RunFacts(lease=left)).words == "ended before its training began"
    failed = RunFacts(lease=lease(is_given_back=True), failure="rank 1: OSError: disk")
    assert run_state(failed) == JobState(
        StateKind.FAILED, "failed: rank 1: OSError: disk; the same command continues"
    )
    silent = run_state(RunFacts(lease=lease(job=None), quiet_seconds=300))
    assert (
        silent.words
        == "lost: no sign of life for 5 min, last from process 5 on n1; the same command continues"
    )


# --- arrays


def test_an_array_counts_its_tasks_and_names_one_that_failed():
    done, running = JobState(StateKind.DONE, "done"), JobState(StateKind.RUNNING, "running for 1 s")
    assert array_state({0: done, 1: done}) == JobState(StateKind.DONE, "done, 2 tasks")
    assert array_state({0: done, 1: running, 2: done}) == JobState(
        StateKind.RUNNING, "tasks: 2 done, 1 running"
    )
    found = array_state({0: done, 1: JobState(StateKind.FAILED, "failed: full disk")})
    assert found == JobState(StateKind.FAILED, "tasks: 1 done, 1 failed; task 1 failed: full disk")


# --- remarks about the training


def turned(lowest_at=100, then_at=200, rise=0.12):
    at = {"time": "2026-03-01T10:00:00+00:00"}
    lowest = {"best_images_seen": lowest_at, "best_loss": -1.48}
    return [
        at | {"event": "start", "images_seen": 0},
        at | {"event": "validation", "images_seen": 200, "rise": rise} | lowest,
        at | {"event": "held_out_turned", "images_seen": 200, "rise": rise} | lowest,
        at
        | {
            "event": "validation",
            "images_seen": then_at,
            "rise": rise,
            **lowest,
            "best_images_seen": lowest_at,
        },
    ]


REMARK = "held-out loss has turned: lowest -1.48 at 100 images, +0.12 since"


def test_a_held_out_loss_that_has_turned_is_a_remark_on_running_and_finished_runs():
    run = RunFacts(events=turned(), lease=lease())
    assert state(queued=queued("RUNNING"), attempts=[started()], run=run).words.endswith(REMARK)
    assert run_state(RunFacts(total_images=9, exported_images=9, events=turned())).words == f"done; {REMARK}"


def test_the_remark_disappears_after_a_new_minimum_or_a_return():
    found_again = turned() + [
        event | {"images_seen": 300, "best_images_seen": 300} for event in turned()[1:2]
    ]
    assert RunFacts(events=found_again).remark == ""
    gone_back = [*turned(), {"time": at(0), "event": "resume", "images_seen": 150}]
    assert RunFacts(events=gone_back).remark == ""


def test_a_run_that_patience_has_ended_is_done_by_patience():
    run = RunFacts(total_images=9, exported_images=5, is_finished=True, is_early=True)
    assert run_state(run) == JobState(StateKind.DONE, "done (patience)")
    assert state(attempts=[started(), ended("done")], run=run) == JobState(StateKind.DONE, "done (patience)")


def test_the_newest_pictures_of_a_run_are_those_of_its_last_standing_event():
    def made(seen):
        file = f"pictures/{seen:012d}/samples.png"
        return {
            "time": at(0),
            "event": "pictures",
            "images_seen": seen,
            "pictures": {"samples": {"file": file}},
        }

    assert RunFacts().newest_pictures == []
    assert RunFacts(events=[made(100), made(200)]).newest_pictures == ["pictures/000000000200/samples.png"]
    gone_back = [made(100), made(200), {"time": at(0), "event": "resume", "images_seen": 150}]
    assert RunFacts(events=gone_back).newest_pictures == ["pictures/000000000100/samples.png"]
