"""State of a job or run, as a kind and a sentence, from SLURM, the supervisor's records and the run folder together.

SLURM's own state would mislead: NODE_FAIL stands for seconds while the job is being requeued, FAILED for a run that a
user stopped as well as for one whose node rebooted, RUNNING for one that hangs.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lediflow.cluster.jobs import AttemptLine, JobRecord, newest_end
from lediflow.cluster.running.attempt import Outcome
from lediflow.cluster.slurm import DEPENDENCY, NEVER, Accounted, Queued, reason_code, why_pending
from lediflow.cluster.watching.goodput import moment
from lediflow.cluster.watching.run_facts import RunFacts
from lediflow.text import duration

# State of an attempt in SLURM's accounting -> why it ended.
WORDS = {
    "NODE_FAIL": "a node failed",
    "PREEMPTED": "other jobs took its nodes",
    "REQUEUED": "a user requeued it",
    "BOOT_FAIL": "a node did not boot",
    "TIMEOUT": "its time limit came before it could save",
    "OUT_OF_MEMORY": "it needed more memory than requested (slurm.mem_gb)",
    "CANCELLED": "cancelled",
    "FAILED": "it ended without a record, as after a reboot of its node",
}
# Of these states: SLURM restarts the job by itself, unless requeueing is disabled.
RESTARTED = ("NODE_FAIL", "PREEMPTED", "REQUEUED", "BOOT_FAIL")
REQUEUE_SECONDS = 180  # SLURM may take this long to requeue a lost job
RESUME = "`lediflow.status resume` continues"
RESUMES_TOO = "`lediflow.status resume {}` resumes this one too"


class StateKind(enum.StrEnum):
    """The state in one word, in order of precedence for an array: the first kind of any task is the array's."""

    RUNNING = "running"
    PENDING = "pending"  # in the queue, or about to be
    UNKNOWN = "unknown"
    FAILED = "failed"  # will not continue by itself
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # on a user's request, with the state saved
    DONE = "done"

    @property
    def is_open(self) -> bool:
        """Whether it may still succeed by itself."""
        return self in (StateKind.RUNNING, StateKind.PENDING, StateKind.UNKNOWN)

    @property
    def is_broken(self) -> bool:
        """Whether it ended without success."""
        return self in (StateKind.FAILED, StateKind.CANCELLED, StateKind.STOPPED)


FINAL = {Outcome.FAILED: StateKind.FAILED, Outcome.STOPPED: StateKind.STOPPED}


@dataclass(frozen=True)
class JobState:
    """A kind, and a sentence for people."""

    kind: StateKind
    words: str


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What is known of one job, or of one task of an array."""

    record: JobRecord
    attempts: Sequence[AttemptLine] = ()  # lines of the attempt log under the current SLURM id
    before: Sequence[str] = ()  # direct and indirect dependencies, direct ones first
    queued: Queued | None = None
    accounts: Sequence[Accounted] = ()  # attempts under the current SLURM id, oldest first
    run: RunFacts = field(default_factory=RunFacts)
    is_slurm_known: bool = True  # SLURM answered: a job that is not in its answer is not in the queue
    now: float = field(default_factory=time.time)

    @property
    def last_end(self) -> AttemptLine | None:
        """End record of the newest attempt, if there is one."""
        return newest_end(self.attempts)

    @property
    def account(self) -> Accounted | None:
        """The newest attempt in SLURM's accounting."""
        return self.accounts[-1] if self.accounts else None

    @property
    def is_training(self) -> bool:
        return self.record.command[0] == "lediflow.train"


def joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


# --- a job


def job_state(found: JobFacts, others: Mapping[str, StateKind] | None = None) -> JobState:
    """State of a job; `others` are the kinds of the jobs it depends on, by name."""
    state = state_of_job(found, others or {})
    return with_remark(state, found.run) if found.is_training and not found.record.array else state


def state_of_job(found: JobFacts, others: Mapping[str, StateKind]) -> JobState:
    """State of a job, without the remark about its training."""
    if found.queued is not None:
        return state_in_queue(found, found.queued, others)
    if (found.last_end and found.last_end["decision"] == Outcome.DONE) or found.run.is_done:
        return JobState(StateKind.DONE, found.run.done)
    if found.run.is_alive:
        holder = found.run.lease and found.run.lease.holder
        return JobState(StateKind.RUNNING, f"trained outside the queue, by {holder}")
    if found.last_end and found.last_end["decision"] in FINAL:
        return final_state(found.last_end)
    if not found.is_slurm_known:
        return JobState(StateKind.UNKNOWN, words_without_slurm(found))
    if is_being_requeued(found):
        return JobState(StateKind.PENDING, f"lost: {why_lost(found)}; SLURM is requeueing it")
    return state_after_queue(found, others)


def with_remark(state: JobState, run: RunFacts) -> JobState:
    """The state, followed by the remark about the training if there is one."""
    return JobState(state.kind, joined(state.words, run.remark))


# --- a job in the queue


def state_in_queue(found: JobFacts, queued: Queued, others: Mapping[str, StateKind]) -> JobState:
    """State of a job that squeue lists."""
    again = f"requeued {times(queued.restarts)}" if queued.restarts else ""
    if queued.is_waiting:
        again_because = ", last time: ".join(filter(None, (again, last_reason(found))))
        return JobState(StateKind.PENDING, joined(again_because, words_pending(queued, found.record, others)))
    end = found.last_end
    if end and end["restart"] == queued.restarts:
        return JobState(StateKind.RUNNING, joined(f"ending: {end['reason']}", again))
    if queued.state in RESTARTED:
        return JobState(
            StateKind.PENDING, joined(again, f"lost: {WORDS[queued.state]}; SLURM is requeueing it")
        )
    if queued.state == "COMPLETING":
        return JobState(StateKind.RUNNING, joined("ending", again))
    return JobState(StateKind.RUNNING, joined(words_running(found, queued), again))


def words_pending(queued: Queued, record: JobRecord, others: Mapping[str, StateKind]) -> str:
    """What a pending job waits for; dependencies are named."""
    reason = reason_code(queued)
    if reason == NEVER:
        broken = [name for name in record.after if name in others and others[name].is_broken] or record.after
        return f"never starts: {' and '.join(broken)} did not succeed; `lediflow.status resume` that"
    if reason == DEPENDENCY:
        missing = [name for name in record.after if others.get(name) is not StateKind.DONE]
        return f"pending: waits for {' and '.join(missing) or 'other jobs'}"
    return why_pending(queued)


def words_running(found: JobFacts, queued: Queued) -> str:
    """What a job does that SLURM calls running: starting, running, or without sign of life."""
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
        quiet = duration(run.quiet_seconds)
        return f"running {lasts} according to SLURM, but without a sign of life for {quiet}"
    return f"running {lasts}"


def raw(found: JobFacts) -> list[str]:
    """The lease's job id for a task of an array: SLURM's internal number, which its commands do not show."""
    lease = found.run.lease
    return [lease.job] if lease and lease.job and "_" in (found.record.job_id or "") else []


def last_reason(found: JobFacts) -> str:
    """Why the last attempt ended: by the supervisor's record, or by SLURM's accounting if SLURM ended it."""
    if found.last_end and found.last_end["decision"] != Outcome.TERMINATED:
        return found.last_end["reason"]
    causes = [WORDS[account.state] for account in found.accounts if account.state in WORDS]
    return causes[-1] if causes and found.attempts else ""


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# --- a job that has left the queue


def is_being_requeued(found: JobFacts) -> bool:
    """Whether SLURM may still be requeueing the job: then the end in its accounting is not final."""
    if not found.record.slurm.get("requeue", True):
        return False
    if found.last_end and found.last_end["decision"] == Outcome.REQUEUE:
        return found.now - moment(found.last_end) < REQUEUE_SECONDS
    account = found.account
    if account is None or account.state not in RESTARTED:
        return False
    return found.now - end_time(account, found.now) < REQUEUE_SECONDS


def end_time(account: Accounted, now: float) -> float:
    """End of an attempt in seconds since the epoch; `now` if it is unknown. SLURM gives local time."""
    try:
        return datetime.fromisoformat(account.end).timestamp()
    except ValueError:
        return now


def why_lost(found: JobFacts) -> str:
    account = found.account
    return (found.last_end or {}).get("reason") or WORDS.get(account.state if account else "", "it was lost")


def final_state(end: AttemptLine) -> JobState:
    """State of a job whose supervisor decided that it has failed or was stopped."""
    advice = "" if "resume" in end["reason"] else RESUME
    return JobState(FINAL[end["decision"]], joined(f"{end['decision']}: {end['reason']}", advice))


def state_after_queue(found: JobFacts, others: Mapping[str, StateKind]) -> JobState:
    """State of a job that has left the queue for good, without a final decision of its supervisor."""
    end, account = found.last_end, found.account
    if account is not None and account.state == "COMPLETED":
        return JobState(StateKind.DONE, found.run.done)
    if account is not None and account.state == "CANCELLED":
        return JobState(StateKind.CANCELLED, words_cancelled(found, others))
    if account is not None and account.state in WORDS and not (end and account.state == "FAILED"):
        return JobState(StateKind.FAILED, joined(f"lost: {WORDS[account.state]}", unsaved(found), RESUME))
    if end:
        return JobState(StateKind.FAILED, f"not requeued: {end['reason']}; {RESUME}")
    if found.attempts:
        return JobState(StateKind.FAILED, joined("lost: it ended without a record", unsaved(found), RESUME))
    if found.record.job_id is None:
        return JobState(StateKind.CANCELLED, "not submitted: SLURM refused it")
    return JobState(StateKind.CANCELLED, words_cancelled(found, others))


def unsaved(found: JobFacts) -> str:
    """Why the last checkpoint could not be written; on a full disk the supervisor cannot write its record either."""
    saves = [event for event in found.run.events if event["event"] in ("checkpoint", "checkpoint_failed")]
    if saves and "reason" in saves[-1]:
        return f"its last checkpoint was not written: {saves[-1]['reason']}"
    return ""


def words_cancelled(found: JobFacts, others: Mapping[str, StateKind]) -> str:
    """Whether a user cancelled the job, or SLURM did because a dependency failed."""
    if found.attempts:
        return f"cancelled; {RESUME}"
    broken = [name for name in found.before if name in others and others[name].is_broken]
    if broken:
        return f"not started: {broken[-1]} did not succeed; {RESUMES_TOO.format(broken[-1])}"
    return f"cancelled before it started; {RESUME}"


def words_without_slurm(found: JobFacts) -> str:
    """What the supervisor's records say, if SLURM does not answer."""
    if not found.attempts:
        return "submitted; SLURM does not answer"
    last = found.last_end or found.attempts[-1]
    what = f"ended ({last['decision']}): {last['reason']}" if found.last_end else "started"
    return f"{what}, {duration(max(0.0, found.now - moment(last)))} ago; SLURM does not answer"


# --- an array, and a run without a job


def array_state(tasks: Mapping[int, JobState]) -> JobState:
    """State of a whole array: the number of tasks of each kind, and the sentence of the first task that failed."""
    counts = Counter(state.kind for state in tasks.values())
    if len(counts) == 1 and StateKind.DONE in counts:
        return JobState(StateKind.DONE, f"done, {len(tasks)} tasks")
    parts = [f"{counts[kind]} {kind}" for kind in reversed(StateKind) if counts[kind]]
    words = f"tasks: {', '.join(parts)}"
    failed = [number for number, state in tasks.items() if state.kind is StateKind.FAILED]
    if failed:
        words += f"; task {failed[0]} {tasks[failed[0]].words}"
    return JobState(next(kind for kind in StateKind if counts[kind]), words)


def run_state(run: RunFacts) -> JobState:
    """State of a run that was started by hand, in a terminal or by the user's own script."""
    return with_remark(state_by_hand(run), run)


def state_by_hand(run: RunFacts) -> JobState:
    """State of a run that was started by hand, without the remark about its training."""
    lease, advice = run.lease, "the same command continues"
    if run.is_alive and lease is not None:
        return JobState(StateKind.RUNNING, f"running, {lease.holder}")
    if run.is_done:
        return JobState(StateKind.DONE, run.done)
    if run.failure:
        return JobState(StateKind.FAILED, f"failed: {run.failure}; {advice}")
    if lease is None:
        return JobState(StateKind.STOPPED, f"not finished; {advice}")
    if lease.is_given_back:
        begun = f"stopped; {advice}"
        return JobState(StateKind.STOPPED, begun if run.events else "ended before its training began")
    quiet = f"no sign of life for {duration(run.quiet_seconds)}"
    return JobState(StateKind.FAILED, f"lost: {quiet}, last from {lease.holder}; {advice}")
