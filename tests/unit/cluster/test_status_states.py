"""What a job is said to be at, from what SLURM, its supervisor and its run folder were seen to say."""

import time
from datetime import UTC, datetime

import pytest

from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.slurm import Accounted, Queued
from lediflow.cluster.watching.evidence import Evidence
from lediflow.cluster.watching.kinds import Kind, State, array_state, run_state
from lediflow.cluster.watching.run_facts import RunFacts
from lediflow.cluster.watching.states import job_state
from lediflow.engine.lease_record import LeaseRecord

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
    return job_state(Evidence(record=record, now=NOW, **evidence), others)


# --- in the queue


@pytest.mark.parametrize(
    "reason, words",
    [
        ("Priority", "pending: waits for its turn: others come first"),
        ("Resources", "pending: waits for free nodes"),
        ("JobHeldUser", "held: `scontrol release 7` lets it go"),
        ("launch_failed_requeued_held", "held: `scontrol release 7` lets it go"),
        (
            "QOSMaxJobsPerUserLimit",
            "pending: waits for a limit of its quality of service (QOSMaxJobsPerUserLimit)",
        ),
        ("ReqNodeNotAvail,_UnavailableNodes:n1", "pending: waits for nodes that are down or reserved"),
        ("SomethingNew", "pending (SomethingNew)"),
        ("None", "pending"),
    ],
)
def test_a_pending_job_says_what_it_waits_for(reason, words):
    assert state(queued=queued("PENDING", reason)) == State(Kind.PENDING, words)


def test_a_job_behind_others_names_those_that_are_not_done():
    others = {"encode": Kind.DONE, "auxiliary": Kind.RUNNING}
    found = state(others, after=["encode", "auxiliary"], queued=queued("PENDING", "Dependency"))
    assert found.words == "pending: waits for auxiliary"


def test_a_job_behind_one_that_failed_says_which_to_resume():
    others = {"encode": Kind.DONE, "auxiliary": Kind.FAILED}
    found = state(others, after=["encode", "auxiliary"], queued=queued("PENDING", "DependencyNeverSatisfied"))
    assert found.words == "never starts: auxiliary did not end well; `lediflow.status resume` that"


def test_a_requeued_job_says_how_often_and_why():
    found = state(
        attempts=[started(), ended("requeue", "the state is saved")], queued=queued("PENDING", "BeginTime", 3)
    )
    assert found.kind is Kind.PENDING
    assert found.words.startswith(
        "requeued 3 times, last time: the state is saved; pending: waits for SLURM to start it again"
    )


def test_a_running_job_says_since_when_and_where():
    run = RunFacts(lease=lease(restart=1), quiet_seconds=3)
    found = state(attempts=[started(700), started(restart=1)], queued=queued("RUNNING", restarts=1), run=run)
    assert found == State(Kind.RUNNING, "running for 10 min on n[1-2]; requeued once")


def test_a_job_whose_ranks_have_no_lease_yet_is_starting():
    earlier = RunFacts(lease=lease(restart=0), quiet_seconds=3)
    for attempts, words in (
        ([], "starting on n[1-2]"),
        ([started(restart=1)], "starting for 10 min on n[1-2]"),
    ):
        found = state(attempts=attempts, queued=queued("RUNNING", restarts=1), run=earlier)
        assert found.words == f"{words}; requeued once"


def test_work_without_a_lease_runs_as_soon_as_it_is_started():
    found = state(command="encode", attempts=[started()], queued=queued("RUNNING"))
    assert found.words == "running for 10 min on n[1-2]"


def test_a_run_that_slurm_calls_running_but_that_gives_no_sign_of_life_is_said_to_be_silent():
    found = state(
        attempts=[started()], queued=queued("RUNNING"), run=RunFacts(lease=lease(), quiet_seconds=300)
    )
    assert "running for 10 min on n[1-2] as SLURM says, but without a sign of life for 5 min" in found.words


@pytest.mark.parametrize("decision", ["requeue", "done"])
def test_a_job_that_leaves_its_nodes_is_ending(decision):
    found = state(attempts=[started(), ended(decision)], queued=queued("COMPLETING"))
    assert found == State(Kind.RUNNING, "ending: a reason")


# --- no longer in the queue


def test_work_is_done_when_its_supervisor_says_so_or_its_weights_are_there():
    assert state(attempts=[started(), ended("done")], accounts=[account("COMPLETED")]).kind is Kind.DONE
    assert state(run=RunFacts(total_images=100, exported_images=100)).kind is Kind.DONE
    assert state(run=RunFacts(total_images=200, exported_images=100)).kind is not Kind.DONE


@pytest.mark.parametrize("decision, kind", [("failed", Kind.FAILED), ("stopped", Kind.STOPPED)])
@pytest.mark.parametrize("slurm_says", ["FAILED", "CANCELLED", "NODE_FAIL"])
def test_what_the_supervisor_decided_outweighs_slurms_word(decision, kind, slurm_says):
    found = state(attempts=[started(), ended(decision)], accounts=[account(slurm_says)])
    assert found == State(kind, f"{decision}: a reason; `lediflow.status resume` goes on")


@pytest.mark.parametrize("slurm_says", ["NODE_FAIL", "PREEMPTED", "REQUEUED"])
def test_a_lost_job_is_not_given_up_while_slurm_may_be_putting_it_back(slurm_says):
    lost = {"attempts": [started()], "accounts": [account(slurm_says)]}
    assert state(**lost).kind is Kind.PENDING
    assert "SLURM is putting it back into the queue" in state(**lost).words
    assert state(**lost, requeue=False).kind is Kind.FAILED
    late = state(attempts=[started()], accounts=[account(slurm_says, seconds_ago=3600)])
    assert late.kind is Kind.FAILED
    assert "resume" in late.words


def test_a_requeue_that_slurm_has_not_shown_yet_is_no_end():
    assert state(attempts=[started(), ended("requeue", seconds_ago=5)]).kind is Kind.PENDING
    late = state(attempts=[started(), ended("requeue", seconds_ago=5000)], accounts=[account("FAILED")])
    assert late.words == "not put back into the queue: a reason; `lediflow.status resume` goes on"


@pytest.mark.parametrize(
    "slurm_says, words",
    [
        (
            "FAILED",
            "lost: it ended without a word, as where a node is rebooted; `lediflow.status resume` goes on",
        ),
        ("OUT_OF_MEMORY", "slurm.mem_gb"),
        ("TIMEOUT", "its time limit came before it could save"),
    ],
)
def test_a_job_that_could_not_say_how_it_ended_is_final_with_slurms_reason(slurm_says, words):
    found = state(attempts=[started()], accounts=[account(slurm_says)])
    assert found.kind is Kind.FAILED
    assert words in found.words


def test_cancelled_is_told_from_given_up_because_of_a_job_before_it():
    assert state(attempts=[started()], accounts=[account("CANCELLED")]).words.startswith("cancelled;")
    assert state(accounts=[account("CANCELLED")]).words.startswith("cancelled before it started")
    others = {"auxiliary": Kind.CANCELLED, "encode": Kind.FAILED}
    found = state(others, before=["auxiliary", "encode"], accounts=[account("CANCELLED")])
    assert found == State(
        Kind.CANCELLED,
        "not started: encode did not end well; `lediflow.status resume encode` takes this one up too",
    )


def test_a_run_that_lives_on_out_of_slurms_sight_is_told():
    found = state(
        attempts=[started()], accounts=[account("NODE_FAIL")], run=RunFacts(lease=lease(), quiet_seconds=1)
    )
    assert found.kind is Kind.RUNNING
    assert "outside the queue, by SLURM job 7, process 5 on n1" in found.words


def test_the_last_word_of_a_start_that_another_has_replaced_is_not_the_jobs():
    attempts = [started(), started(restart=1), ended("failed", restart=1), ended("terminated")]
    assert state(attempts=attempts).words == "failed: a reason; `lediflow.status resume` goes on"
    assert state(attempts=[*attempts[:2], attempts[3]]).words.startswith("lost: it ended without a word")


def test_without_slurm_notes_are_told_as_notes():
    found = state(is_slurm_known=False, attempts=[started()])
    assert found == State(Kind.UNKNOWN, "started, 10 min ago; SLURM does not answer")
    assert state(is_slurm_known=False, attempts=[started(), ended("failed")]).kind is Kind.FAILED


# --- runs without a job


def test_a_run_started_by_hand_tells_its_state_by_its_folder():
    assert (
        run_state(RunFacts(lease=lease(), quiet_seconds=1)).words == "running, SLURM job 7, process 5 on n1"
    )
    assert run_state(RunFacts(total_images=9, exported_images=9)).words == "done"
    assert run_state(RunFacts(lease=lease(is_given_back=True))).words == "stopped; the same command goes on"
    failed = RunFacts(lease=lease(is_given_back=True), failure="rank 1: OSError: disk")
    assert run_state(failed) == State(Kind.FAILED, "failed: rank 1: OSError: disk; the same command goes on")
    silent = run_state(RunFacts(lease=lease(job=None), quiet_seconds=300))
    assert (
        silent.words == "lost: no sign of life for 5 min, last from process 5 on n1; the same command goes on"
    )


# --- arrays


def test_an_array_counts_its_tasks_and_names_one_that_failed():
    done, running = State(Kind.DONE, "done"), State(Kind.RUNNING, "running for 1 s")
    assert array_state({0: done, 1: done}) == State(Kind.DONE, "done, 2 tasks")
    assert array_state({0: done, 1: running, 2: done}) == State(Kind.RUNNING, "tasks: 2 done, 1 running")
    found = array_state({0: done, 1: State(Kind.FAILED, "failed: full disk")})
    assert found == State(Kind.FAILED, "tasks: 1 done, 1 failed; task 1 failed: full disk")


# --- what is to be known of the training besides


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


def test_a_loss_that_has_turned_is_told_while_the_run_goes_on_and_when_it_is_done():
    run = RunFacts(events=turned(), lease=lease())
    assert state(queued=queued("RUNNING"), attempts=[started()], run=run).words.endswith(REMARK)
    assert run_state(RunFacts(total_images=9, exported_images=9, events=turned())).words == f"done; {REMARK}"


def test_but_not_after_a_new_lowest_or_a_return_to_before():
    found_again = turned() + [
        event | {"images_seen": 300, "best_images_seen": 300} for event in turned()[1:2]
    ]
    assert RunFacts(events=found_again).remark == ""
    gone_back = [*turned(), {"time": at(0), "event": "resume", "images_seen": 150}]
    assert RunFacts(events=gone_back).remark == ""


def test_a_run_that_patience_has_ended_is_done_and_says_so():
    run = RunFacts(total_images=9, exported_images=5, is_finished=True, is_early=True)
    assert run_state(run) == State(Kind.DONE, "done (patience)")
    assert state(attempts=[started(), ended("done")], run=run) == State(Kind.DONE, "done (patience)")
