"""Why a job waits in the queue: SLURM's reason in words.

Source: "Job reason codes" in SLURM's manual, https://slurm.schedmd.com/job_reason_codes.html
"""

from __future__ import annotations

from collections.abc import Mapping

from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.slurm import Queued
from lediflow.cluster.watching.kinds import Kind

REASONS = {
    "Resources": "for free nodes",
    "Priority": "for its turn: others come first",
    "BeginTime": "for SLURM to start it again, some minutes at most",
    "Cleaning": "for its last start to be cleared away",
    "Reservation": "for its reservation to begin",
    "PartitionDown": "for its partition, which is down",
    "PartitionInactive": "for its partition, which takes no jobs now",
    "JobArrayTaskLimit": "for other tasks of its array (slurm.array_parallelism)",
    "ReqNodeNotAvail": "for nodes that are down or reserved",
    "PartitionTimeLimit": "for ever: slurm.timeout_min is above its partition's limit",
    "PartitionNodeLimit": "for ever: slurm.nodes is above its partition's limit",
    "BadConstraints": "for ever: no node is what slurm.constraint asks for",
}
LIMITS = {
    "Assoc": "account",
    "QOS": "quality of service",
    "Resv": "reservation",
}  # beginnings of many reasons
NEVER = "DependencyNeverSatisfied"


def why_pending(queued: Queued, record: JobRecord, others: Mapping[str, Kind]) -> str:
    """`others`: what is known of the jobs it may wait for."""
    reason = queued.reason.strip("()").replace(" ", "_")
    if reason == NEVER:
        broken = [name for name in record.after if name in others and others[name].is_broken] or record.after
        return f"never starts: {' and '.join(broken)} did not end well; `lediflow.status resume` that"
    if reason == "Dependency":
        missing = [name for name in record.after if others.get(name) is not Kind.DONE]
        return f"pending: waits for {' and '.join(missing) or 'other jobs'}"
    if "held" in reason.lower():
        return f"held: `scontrol release {queued.job}` lets it go"
    code = reason.partition(",")[0]
    if code in REASONS:
        return f"pending: waits {REASONS[code]}"
    for beginning, what in LIMITS.items():
        if code.startswith(beginning):
            return f"pending: waits for a limit of its {what} ({code})"
    return "pending" if code in ("", "None") else f"pending ({reason.replace('_', ' ')})"
