"""`python -m lediflow.cluster.running.supervise JOBFOLDER`: the batch step of a job, on its first node.

Starts the ranks, waits for them, finds out how they ended, and decides: done, back into the queue, or failed. A crash
is told once, with the rank, its node and its traceback. SLURM's signals are for the ranks; one that ends the job leaves
the decision to SLURM.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.incarnation import Incarnation, find_incarnation
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.running.decision import Decision, Verdict, crashes_in_a_row, decide
from lediflow.cluster.running.ends import End, first_to_fail, read_ends
from lediflow.cluster.running.srun import FAILED_STATUS, Srun, meeting_point, srun_command

REQUEUE_PAUSES = (
    1,
    2,
    4,
    8,
    15,
    *[30] * 20,
)  # seconds: a controller that is restarted may be away for minutes
EXCLUDE_PAUSES = (0.5,) * 4
UNTIL_ENDED_SECONDS = 120  # that SLURM takes to end a job it was told to requeue


@dataclass
class Supervisor:
    folder: JobFolder
    record: JobRecord
    config: SlurmConfig
    here: Incarnation
    is_terminated: bool = False

    def run(self) -> int:
        """The job's exit status."""
        nodes = slurm.hostnames(self.here.nodes)
        self.note("start", nodes=nodes, ranks=self.here.ranks, gpus=self.here.gpus)
        signal.signal(signal.SIGTERM, self._note_termination)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # for the ranks, which get it as well
        srun = Srun(srun_command(self.folder, self.here, self.config), meeting_point(nodes, self.here))
        status = srun.run()
        ends = read_ends(self.folder.ends(self.here.label))
        if status == 0 and sum(end.status == 0 for end in ends) < self.here.ranks:
            status = FAILED_STATUS  # srun also ends with 0 when it loses a node
        remove_empty(self.folder.log, self.here)
        culprit = None if status == 0 else first_to_fail(ends, srun.told)
        decision = self.decide(status, culprit)
        self.tell(decision, culprit)
        return self.act(decision, status)

    def decide(self, status: int, culprit: End | None) -> Decision:
        if self.is_replaced():
            return Decision(
                Verdict.TERMINATED, "SLURM had given this start up for lost, and another one runs"
            )
        return decide(
            status,
            culprit,
            self.config,
            restarts=self.here.restart,
            crashes=crashes_in_a_row(self.own_attempts(), newest_checkpoint(self.record)),
            is_terminated=self.is_terminated,
        )

    def own_attempts(self) -> list[dict[str, Any]]:
        """Of this job, or of this task of the array."""
        return [entry for entry in self.folder.attempts() if entry["job"] == self.here.job]

    def is_replaced(self) -> bool:
        """Whether SLURM has put the job back into the queue while this start lived on, out of its sight."""
        try:
            return slurm.restarts(self.here.job) != self.here.restart
        except slurm.SlurmError:
            return False  # out of reach, or forgotten: then nothing can be taken from the other start either

    def tell(self, decision: Decision, culprit: End | None) -> None:
        if culprit is not None and culprit.traceback:
            print(f"\nrank {culprit.rank} on {culprit.host} failed:\n{culprit.traceback}", file=sys.stderr)
        print(
            f"{self.record.name}, job {self.here.job}: {decision.verdict}: {decision.reason}", file=sys.stderr
        )

    def act(self, decision: Decision, status: int) -> int:
        is_noted = self.note(
            "end",
            status=status,
            decision=str(decision.verdict),
            reason=decision.reason,
            images=newest_checkpoint(self.record),
            is_crash=decision.is_crash,
            excluded=list(decision.excluded),
        )
        if decision.verdict is Verdict.DONE:
            return 0
        if decision.verdict is Verdict.REQUEUE and is_noted:  # starts that leave no note cannot be counted
            self.requeue()
        return status or FAILED_STATUS

    def requeue(self) -> None:
        """Back into the queue, away from nodes that failed; SLURM then ends this process."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM's, which would also end what is called here
        name, job = self.record.name, self.here.job
        if not insist(lambda: slurm.requeue(job), f"{name} is not put back", REQUEUE_PAUSES):
            return
        if nodes := bad_nodes(self.folder, self.config):
            # only a job that waits can be told; this one begins to wait now
            insist(lambda: slurm.exclude(job, nodes), f"{name} may come to {nodes} again", EXCLUDE_PAUSES)
        time.sleep(UNTIL_ENDED_SECONDS)

    def note(self, event: str, **values: Any) -> bool:
        """Whether it could be written: not on a full disk."""
        here = {"job": self.here.job, "restart": self.here.restart, "array_task": self.here.array_task}
        try:
            self.folder.note(event, **here, **values)
        except OSError as error:
            print(f"{self.record.name}: {self.folder.attempts_file} is not written: {error}", file=sys.stderr)
            return False
        return True

    def _note_termination(self, number: int, frame: object) -> None:
        self.is_terminated = True


def newest_checkpoint(record: JobRecord) -> int | None:
    """Images seen at it, by its name."""
    names = [path.name for path in (Path(record.run) / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def insist(action: Callable[[], None], otherwise: str, pauses: Sequence[float]) -> bool:
    """Whether SLURM did it, at one of several times."""
    for pause in (*pauses, None):
        try:
            action()
            return True
        except slurm.SlurmError as error:
            if pause is None:
                print(f"{otherwise}: {error}", file=sys.stderr)
            else:
                time.sleep(pause)
    return False


def bad_nodes(folder: JobFolder, config: SlurmConfig) -> list[str]:
    """Every node that a start of this job was ended by, and those never wanted."""
    found = [node for entry in folder.attempts() for node in entry.get("excluded", [])]
    wanted = [config.exclude] if found and config.exclude else []
    return [*wanted, *dict.fromkeys(found)]


def remove_empty(log: Path, here: Incarnation) -> None:
    """Ranks that had nothing to say."""
    for path in log.glob(f"{here.label}-rank*.log"):
        if path.stat().st_size == 0:
            path.unlink()


def main(arguments: list[str]) -> None:
    folder = JobFolder(Path(arguments[0]))
    record = folder.read()
    sys.exit(Supervisor(folder, record, SlurmConfig(**record.slurm), find_incarnation()).run())


if __name__ == "__main__":
    main(sys.argv[1:])
