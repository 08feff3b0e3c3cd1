"""`python -m lediflow.cluster.running.supervise JOBFOLDER`: the batch step of a job, on its first node.

Starts the ranks through srun, one process each, waits for them, finds the root cause of a failure and decides: done,
requeued, or failed. A crash is reported once, with rank, node and traceback. SLURM's warning signals are left to the
ranks; after TERM the decision about a restart is left to SLURM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobFolder, JobRecord, SlurmConfig
from lediflow.cluster.running.attempt import (
    Attempt,
    Decision,
    Outcome,
    RankExit,
    crashes_in_a_row,
    decide,
    exit_from_srun,
    find_attempt,
    read_exits,
    root_cause,
)
from lediflow.engine.ranks import SLURM_PORTS

# Seconds between tries; ten minutes in all, since a controller that is restarted may be away for minutes.
REQUEUE_PAUSES = (1, 2, 4, 8, 15, *[30] * 20)
EXCLUDE_PAUSES = (0.5,) * 4
BEYOND_KILL_WAIT_SECONDS = 15  # after SLURM has killed the ranks that did not end by themselves
FAILED_STATUS = 1
UNTIL_ENDED_SECONDS = 120  # SLURM takes up to this long to end a job that it requeues


@dataclass
class Supervisor:
    """Runs one attempt of a job."""

    folder: JobFolder
    record: JobRecord
    config: SlurmConfig
    attempt: Attempt
    is_terminated: bool = False  # SLURM has sent TERM

    def run(self) -> int:
        """Run the ranks, decide and act; the exit status of the job."""
        nodes = slurm.hostnames(self.attempt.nodes)
        self.note("start", nodes=nodes, ranks=self.attempt.ranks, gpus=self.attempt.gpus)
        signal.signal(signal.SIGTERM, self._note_termination)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # meant for the ranks, which receive them too

        srun = Srun(
            srun_command(self.folder, self.attempt, self.config), rendezvous_variables(nodes, self.attempt)
        )
        status = srun.run()
        exits = read_exits(self.folder.rank_exits(self.attempt.label))
        if status == 0 and sum(exit_.status == 0 for exit_ in exits) < self.attempt.ranks:
            status = FAILED_STATUS  # srun also ends with 0 when it loses a node
        remove_empty_logs(self.folder.log, self.attempt)

        cause = None if status == 0 else root_cause(exits, srun.exits)
        decision = self.decide(status, cause)
        self.report(decision, cause)
        return self.act(decision, status)

    def decide(self, status: int, cause: RankExit | None) -> Decision:
        """The decision about the job; TERMINATED if SLURM has started another attempt meanwhile."""
        if self.is_superseded():
            return Decision(
                Outcome.TERMINATED, "SLURM had given up this attempt as lost, and another one is running"
            )
        return decide(
            status,
            cause,
            self.config,
            restarts=self.attempt.restart,
            crashes=crashes_in_a_row(self.folder.attempts(self.attempt.job), newest_checkpoint(self.record)),
            is_terminated=self.is_terminated,
        )

    def is_superseded(self) -> bool:
        """Whether SLURM has requeued the job while this attempt went on without its knowledge."""
        try:
            return slurm.restarts(self.attempt.job) != self.attempt.restart
        except slurm.SlurmError:
            return False  # no answer, so no other attempt is known that this one could disturb

    def report(self, decision: Decision, cause: RankExit | None) -> None:
        """Print the root cause's traceback and the decision."""
        if cause is not None and cause.traceback:
            print(f"\nrank {cause.rank} on {cause.host} failed:\n{cause.traceback}", file=sys.stderr)
        name = f"{self.record.name}, job {self.attempt.job}"
        print(f"{name}: {decision.outcome}: {decision.reason}", file=sys.stderr)

    def act(self, decision: Decision, status: int) -> int:
        """Record the decision and carry it out; the exit status of the job."""
        is_noted = self.note(
            "end",
            status=status,
            decision=str(decision.outcome),
            reason=decision.reason,
            images=newest_checkpoint(self.record),
            is_crash=decision.is_crash,
            excluded=list(decision.excluded),
        )
        if decision.outcome is Outcome.DONE:
            return 0
        if decision.outcome is Outcome.REQUEUE and is_noted:  # attempts without a record could not be limited
            self.requeue()
        return status or FAILED_STATUS

    def requeue(self) -> None:
        """Requeue the job without the nodes that failed; SLURM then ends this process."""
        # SLURM sends TERM to the whole job, which would also end the commands that are called here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        name, job = self.record.name, self.attempt.job
        if not retry(lambda: slurm.requeue(job), f"{name} is not requeued", REQUEUE_PAUSES):
            return
        if nodes := nodes_to_exclude(self.folder, self.config):
            # after the requeue: SLURM accepts this for pending jobs only
            retry(lambda: slurm.exclude(job, nodes), f"{name} may run on {nodes} again", EXCLUDE_PAUSES)
        time.sleep(UNTIL_ENDED_SECONDS)

    def note(self, event: str, **values: Any) -> bool:
        """Append to the attempt log; False if it cannot be written, as on a full disk."""
        attempt = {
            "job": self.attempt.job,
            "restart": self.attempt.restart,
            "array_task": self.attempt.array_task,
        }
        try:
            self.folder.note(event, **attempt, **values)
        except OSError as error:
            print(f"{self.record.name}: {self.folder.attempts_file} is not written: {error}", file=sys.stderr)
            return False
        return True

    def _note_termination(self, number: int, frame: object) -> None:
        self.is_terminated = True


def newest_checkpoint(record: JobRecord) -> int | None:
    """Images seen at the newest checkpoint, from its folder's name; None if there is none."""
    names = [path.name for path in (Path(record.run) / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def retry(action: Callable[[], None], consequence: str, pauses: Sequence[float]) -> bool:
    """Try until SLURM accepts, with these pauses between tries; if it never does, print `consequence` and the error."""
    for pause in (*pauses, None):
        try:
            action()
            return True
        except slurm.SlurmError as error:
            if pause is None:
                print(f"{consequence}: {error}", file=sys.stderr)
            else:
                time.sleep(pause)
    return False


def nodes_to_exclude(folder: JobFolder, config: SlurmConfig) -> list[str]:
    """Nodes at fault in any attempt of the job, after those of slurm.exclude; empty if none was at fault."""
    found = [node for entry in folder.attempts() for node in entry.get("excluded", [])]
    configured = [config.exclude] if found and config.exclude else []
    return [*configured, *dict.fromkeys(found)]


def remove_empty_logs(log: Path, attempt: Attempt) -> None:
    """Remove the logs of ranks without output."""
    for path in log.glob(f"{attempt.label}-rank*.log"):
        if path.stat().st_size == 0:
            path.unlink()


# --- srun


class Srun:
    """One job step with all ranks. `.exits`: ranks that srun reported as failed, in its order."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.command, self.variables = command, variables
        self.exits: list[RankExit] = []

    def run(self) -> int:
        """Run to the end; returns the exit status in the form of a shell. srun's messages are passed on to stderr."""
        environment = {**os.environ, **self.variables}
        with subprocess.Popen(self.command, stderr=subprocess.PIPE, env=environment) as srun:
            listener = threading.Thread(target=self._listen, args=(srun.stderr,), daemon=True)
            listener.start()
            status = self._wait(srun, patience_seconds=slurm.kill_wait() + BEYOND_KILL_WAIT_SECONDS)
            listener.join(timeout=5)
        return status if status >= 0 else 128 - status

    def _wait(self, srun: subprocess.Popen[bytes], patience_seconds: int) -> int:
        """Wait for srun; end it `patience_seconds` after the first failure.

        srun ends the other ranks once one has failed, but waits forever for those of a node that was rebooted.
        """
        since_failure = 0
        while since_failure < patience_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return srun.wait(timeout=1)
            since_failure += bool(self.exits)
        print(
            f"srun is ended: it still waits for ranks {patience_seconds} s after others failed",
            file=sys.stderr,
        )
        srun.kill()
        srun.wait()
        return FAILED_STATUS

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            if exit_ := exit_from_srun(line.decode(errors="replace")):
                self.exits.append(exit_)
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def srun_command(folder: JobFolder, attempt: Attempt, config: SlurmConfig) -> list[str]:
    """The command line. --cpus-per-task is repeated: since SLURM 22.05 srun no longer takes it from the job."""
    return [
        "srun",
        "--kill-on-bad-exit=1",
        f"--ntasks={attempt.ranks}",
        f"--ntasks-per-node={config.tasks_per_node}",
        f"--cpus-per-task={config.cpus_per_task}",
        *config.srun_args,
        *[sys.executable, "-u", "-m", "lediflow.cluster.running.task", str(folder.root)],
    ]


def rendezvous_variables(nodes: list[str], attempt: Attempt) -> Mapping[str, str]:
    """Address and port at which the ranks connect: the first node, which is this one, and a port that is free now."""
    first = int("".join(filter(str.isdigit, attempt.job)) or 0) + attempt.restart
    for offset in range(len(SLURM_PORTS)):
        port = SLURM_PORTS[(first + offset) % len(SLURM_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return {"MASTER_ADDR": nodes[0] if nodes else "127.0.0.1", "MASTER_PORT": str(port)}
    return {}


def main(arguments: list[str]) -> None:
    """Supervise one attempt of the job whose folder is given; ends the process with the job's exit status."""
    folder = JobFolder(Path(arguments[0]))
    record = folder.read()
    sys.exit(Supervisor(folder, record, SlurmConfig(**record.slurm), find_attempt()).run())


if __name__ == "__main__":
    main(sys.argv[1:])
