"""The state of a job in true words: what SLURM says, what its supervisor noted, what its run folder shows.

SLURM alone does not tell the truth: NODE_FAIL stands for seconds while the job is being put back into the queue, FAILED
stands for a run that was stopped by a person and for one whose node rebooted, RUNNING for one that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lediflow.cluster.decision import Verdict
from lediflow.cluster.goodput import moment
from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.kinds import Kind, State
from lediflow.cluster.reasons import why_pending
from lediflow.cluster.run_facts import RunFacts
from lediflow.cluster.slurm import Accounted, Queued
from lediflow.tracking.progress import duration

FINAL = {Verdict.FAILED: Kind.FAILED, Verdict.STOPPED: Kind.STOPPED}
REQUEUE_SECONDS = 180  # that SLURM may take to put a lost job back into the queue
RESUME = "`lediflow.status resume` goes on"
TAKES_UP = "`lediflow.status resume {}` takes up both"
# Of SLURM's accounting: it starts these again by itself, unless forbidden.
STARTED_AGAIN = ("NODE_FAIL", "PREEMPTED", "REQUEUED", "BOOT_FAIL")
WORDS = {
    "NODE_FAIL": "a node failed",
    "PREEMPTED": "other jobs took its nodes",
    "REQUEUED": "somebody put it back into the queue",
    "BOOT_FAIL": "a node did not boot",
    "TIMEOUT": "its time limit came before it could save",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for (slurm.mem_gb)",
    "CANCELLED": "cancelled",
    "FAILED": "it ended without a word, as where a node is rebooted",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one job, or of one task of an array."""

    record: JobRecord
    attempts: Sequence[dict[str, Any]] = ()  # of its present id
    queued: Queued | None = None
    accounts: Sequence[Accounted] = ()  # of its present id
    run: RunFacts = field(default_factory=RunFacts)
    is_slurm_known: bool = True  # whether SLURM answered: then a job it does not name is not in the queue
    now: float = field(default_factory=time.time)

    @property
    def last_end(self) -> dict[str, Any] | None:
        """How the last start ended, if it said so."""
        return self.attempts[-1] if self.attempts and self.attempts[-1]["event"] == "end" else None

    @property
    def account(self) -> Accounted | None:
        return self.accounts[-1] if self.accounts else None

    @property
    def is_training(self) -> bool:
        return self.record.command[0] == "lediflow.train"


def job_state(found: Evidence, others: Mapping[str, Kind] | None = None) -> State:
    """`others`: what is known of the jobs that this one waits for."""
    if found.queued is not None:
        return state_in_queue(found, found.queued, others or {})
    if (found.last_end and found.last_end["decision"] == Verdict.DONE) or found.run.is_done:
        return State(Kind.DONE, "done")
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
        return State(
            Kind.PENDING, joined(again, last_reason(found), why_pending(queued, found.record, others))
        )
    end = found.last_end
    if end and end["restart"] == queued.restarts:
        return State(Kind.RUNNING, joined(f"ending: {end['decision']}", end["reason"]))
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
    """Why it is in the queue again."""
    if found.last_end:
        return found.last_end["reason"]
    account = found.account
    return WORDS.get(account.state, "") if found.attempts and account else ""


def is_being_requeued(found: Evidence) -> bool:
    """Whether SLURM may not have finished putting it back: then what it accounts is not the end."""
    if not found.record.slurm.get("requeue", True):
        return False
    if found.last_end and found.last_end["decision"] == Verdict.REQUEUE:
        return found.now - moment(found.last_end) < REQUEUE_SECONDS
    account = found.account
    if account is None or account.state not in STARTED_AGAIN:
        return False
    return found.now - ended(account, found.now) < REQUEUE_SECONDS


def ended(account: Accounted, now: float) -> float:
    """SLURM's time of the end is local time."""
    try:
        return datetime.fromisoformat(account.end).timestamp()
    except ValueError:
        return now


def why_lost(found: Evidence) -> str:
    account = found.account
    return (found.last_end or {}).get("reason") or WORDS.get(account.state if account else "", "it was lost")


def final_state(end: dict[str, Any]) -> State:
    """Of a job that its supervisor ended."""
    advice = "" if "resume" in end["reason"] else RESUME
    return State(FINAL[end["decision"]], joined(f"{end['decision']}: {end['reason']}", advice))


def state_after_queue(found: Evidence, others: Mapping[str, Kind]) -> State:
    end, account = found.last_end, found.account
    if account is not None and account.state == "COMPLETED":
        return State(Kind.DONE, "done")
    if account is not None and account.state == "CANCELLED":
        return State(Kind.CANCELLED, cancelled(found, others))
    if account is not None and account.state in WORDS:
        return State(Kind.FAILED, f"lost: {WORDS[account.state]}; {RESUME}")
    if end:
        return State(Kind.FAILED, f"not in the queue: {end['reason']}; {RESUME}")
    if found.attempts:
        return State(Kind.FAILED, f"lost: it ended without a word; {RESUME}")
    if found.record.job_id is None:
        return State(Kind.CANCELLED, "not submitted: SLURM refused it")
    return State(Kind.CANCELLED, cancelled(found, others))


def cancelled(found: Evidence, others: Mapping[str, Kind]) -> str:
    """By a person, or by SLURM because of a job before it."""
    if found.attempts:
        return f"cancelled; {RESUME}"
    broken = [name for name in found.record.after if name in others and others[name].is_broken]
    if broken:
        return f"not started: {' and '.join(broken)} did not end well; {TAKES_UP.format(broken[0])}"
    return f"cancelled before it started; {RESUME}"


def by_notes_alone(found: Evidence) -> str:
    """Where SLURM does not answer."""
    if not found.attempts:
        return "submitted; SLURM does not answer"
    last = found.attempts[-1]
    what = f"ended ({last['decision']}): {last['reason']}" if found.last_end else "started"
    return f"{what}, {duration(max(0.0, found.now - moment(last)))} ago; SLURM does not answer"


def joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
