"""What became of a job that is in the queue no more: it is being put back, has ended for good, or was never started."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lediflow.cluster.running.decision import Verdict
from lediflow.cluster.slurm import Accounted
from lediflow.cluster.watching.evidence import STARTED_AGAIN, WORDS, Evidence, joined
from lediflow.cluster.watching.goodput import moment
from lediflow.cluster.watching.kinds import Kind, State
from lediflow.tracking.progress import duration

FINAL = {Verdict.FAILED: Kind.FAILED, Verdict.STOPPED: Kind.STOPPED}
REQUEUE_SECONDS = 180  # that SLURM may take to put a lost job back into the queue
RESUME = "`lediflow.status resume` goes on"
TAKES_UP = "`lediflow.status resume {}` takes this one up too"


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
        return State(Kind.DONE, found.run.done)
    if account is not None and account.state == "CANCELLED":
        return State(Kind.CANCELLED, cancelled(found, others))
    if account is not None and account.state in WORDS and not (end and account.state == "FAILED"):
        return State(Kind.FAILED, joined(f"lost: {WORDS[account.state]}", unsaved(found), RESUME))
    if end:
        return State(Kind.FAILED, f"not put back into the queue: {end['reason']}; {RESUME}")
    if found.attempts:
        return State(Kind.FAILED, joined("lost: it ended without a word", unsaved(found), RESUME))
    if found.record.job_id is None:
        return State(Kind.CANCELLED, "not submitted: SLURM refused it")
    return State(Kind.CANCELLED, cancelled(found, others))


def unsaved(found: Evidence) -> str:
    """Why its last checkpoint could not be written: on a full disk nobody can note how a run ends."""
    saves = [event for event in found.run.events if event["event"] in ("checkpoint", "checkpoint_failed")]
    return (
        f"its last checkpoint was not written: {saves[-1]['reason']}"
        if saves and "reason" in saves[-1]
        else ""
    )


def cancelled(found: Evidence, others: Mapping[str, Kind]) -> str:
    """By a person, or by SLURM because of a job before it."""
    if found.attempts:
        return f"cancelled; {RESUME}"
    broken = [name for name in found.before if name in others and others[name].is_broken]
    if broken:
        return f"not started: {broken[-1]} did not end well; {TAKES_UP.format(broken[-1])}"
    return f"cancelled before it started; {RESUME}"


def by_notes_alone(found: Evidence) -> str:
    """Where SLURM does not answer."""
    if not found.attempts:
        return "submitted; SLURM does not answer"
    last = found.last_end or found.attempts[-1]
    what = f"ended ({last['decision']}): {last['reason']}" if found.last_end else "started"
    return f"{what}, {duration(max(0.0, found.now - moment(last)))} ago; SLURM does not answer"
