"""The state of a job in true words: what SLURM says, what its supervisor noted, what its run folder shows.

SLURM alone does not tell the truth: NODE_FAIL stands for seconds while the job is being put back into the queue, FAILED
stands for a run that was stopped by a person and for one whose node rebooted, RUNNING for one that hangs.
"""

from __future__ import annotations

from collections.abc import Mapping

from lediflow.cluster.running.decision import Verdict
from lediflow.cluster.slurm import Queued
from lediflow.cluster.watching.after_queue import (
    FINAL,
    by_notes_alone,
    final_state,
    is_being_requeued,
    state_after_queue,
    why_lost,
)
from lediflow.cluster.watching.evidence import STARTED_AGAIN, WORDS, Evidence, joined
from lediflow.cluster.watching.goodput import moment
from lediflow.cluster.watching.kinds import Kind, State, with_remark
from lediflow.cluster.watching.reasons import why_pending
from lediflow.tracking.progress import duration


def job_state(found: Evidence, others: Mapping[str, Kind] | None = None) -> State:
    """`others`: what is known of the jobs that this one waits for."""
    state = state_of_job(found, others)
    return with_remark(state, found.run) if found.is_training and not found.record.array else state


def state_of_job(found: Evidence, others: Mapping[str, Kind] | None) -> State:
    if found.queued is not None:
        return state_in_queue(found, found.queued, others or {})
    if (found.last_end and found.last_end["decision"] == Verdict.DONE) or found.run.is_done:
        return State(Kind.DONE, found.run.done)
    if found.run.is_alive:
        return State(
            Kind.RUNNING, f"trained outside the queue, by {found.run.lease and found.run.lease.holder}"
        )
    if found.last_end and found.last_end["decision"] in FINAL:
        return final_state(found.last_end)
    if not found.is_slurm_known:
        return State(Kind.UNKNOWN, by_notes_alone(found))
    if is_being_requeued(found):
        return State(Kind.PENDING, f"lost: {why_lost(found)}; SLURM is putting it back into the queue")
    return state_after_queue(found, others or {})


def state_in_queue(found: Evidence, queued: Queued, others: Mapping[str, Kind]) -> State:
    again = f"requeued {times(queued.restarts)}" if queued.restarts else ""
    if queued.is_waiting:
        again_because = ", last time: ".join(filter(None, (again, last_reason(found))))
        return State(Kind.PENDING, joined(again_because, why_pending(queued, found.record, others)))
    end = found.last_end
    if end and end["restart"] == queued.restarts:
        return State(Kind.RUNNING, joined(f"ending: {end['reason']}", again))
    if queued.state in STARTED_AGAIN:
        return State(Kind.PENDING, joined(again, f"lost: {WORDS[queued.state]}; SLURM is putting it back"))
    if queued.state == "COMPLETING":
        return State(Kind.RUNNING, joined("ending", again))
    return State(Kind.RUNNING, joined(at_work(found, queued), again))


def at_work(found: Evidence, queued: Queued) -> str:
    """Of a job that SLURM calls running."""
    starts = [entry for entry in found.attempts if entry["restart"] == queued.restarts]
    if not starts:
        return f"starting on {queued.nodes}"
    lasts = f"for {duration(max(0.0, found.now - moment(starts[0])))} on {queued.nodes}"
    lease, run = found.run.lease, found.run
    if not found.is_training or found.record.array:
        return f"running {lasts}"
    if lease is None or lease.restart != queued.restarts or lease.job not in (queued.job, None, *raw(found)):
        return f"starting {lasts}"
    if not run.is_alive and not lease.is_given_back:
        return f"running {lasts} as SLURM says, but without a sign of life for {duration(run.quiet_seconds)}"
    return f"running {lasts}"


def raw(found: Evidence) -> list[str]:
    """The lease's own word for a task of an array: its number in SLURM's tables, which we are not told."""
    lease = found.run.lease
    return [lease.job] if lease and lease.job and "_" in (found.record.job_id or "") else []


def last_reason(found: Evidence) -> str:
    """Why it is in the queue again: the supervisor's word, or SLURM's where SLURM ended the start."""
    if found.last_end and found.last_end["decision"] != Verdict.TERMINATED:
        return found.last_end["reason"]
    said = [WORDS[account.state] for account in found.accounts if account.state in WORDS]
    return said[-1] if said and found.attempts else ""


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
