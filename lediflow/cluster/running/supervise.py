"""`python -m lediflow.cluster.running.supervise JOBFOLDER`: the batch step of a job, on its first node.

Starts the ranks, waits for them, finds out how they ended, and decides: done, back into the queue, or failed. A crash
is told once, with the rank, its node and its traceback. SLURM's signals are for the ranks; one that ends the job leaves
the decision to SLURM.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.incarnation import Incarnation, find_incarnation
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.running.decision import Decision, Verdict, crashes_in_a_row, decide
from lediflow.cluster.running.ends import End, first_to_fail, read_ends, told_by_srun
from lediflow.engine.ranks import SLURM_PORTS

EXCLUDING_TRIES, EXCLUDING_PAUSE_SECONDS = 5, 0.5
UNTIL_ENDED_SECONDS = 120  # that SLURM takes to end a job it was told to requeue
BEYOND_KILL_WAIT_SECONDS = 15  # after SLURM has killed what did not end by itself
FAILED_STATUS = 1


@dataclass
class Supervisor:
    folder: JobFolder
    record: JobRecord
    config: SlurmConfig
    here: Incarnation
    patience_seconds: int = 60  # from the first rank that failed to the last that is ended
    is_terminated: bool = False
    told: list[End] = field(default_factory=list)  # by srun, in its order

    def run(self) -> int:
        """The job's exit status."""
        nodes = slurm.hostnames(self.here.nodes)
        self.note("start", nodes=nodes, ranks=self.here.ranks, gpus=self.here.gpus)
        signal.signal(signal.SIGTERM, self._note_termination)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # for the ranks, which get it as well
        status = self.start_ranks(nodes)
        ends = read_ends(self.folder.ends(self.here.label))
        if status == 0 and sum(end.status == 0 for end in ends) < self.here.ranks:
            status = FAILED_STATUS  # srun also ends with 0 when it loses a node
        remove_empty(self.folder.log, self.here)
        culprit = None if status == 0 else first_to_fail(ends, self.told)
        decision = self.decide(status, culprit)
        self.tell(decision, culprit)
        return self.act(decision, status)

    def start_ranks(self, nodes: list[str]) -> int:
        """srun's status. What it says about ranks is kept, everything is passed on."""
        command = srun_command(self.folder, self.here, self.config)
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, env={**os.environ, **meeting_point(nodes, self.here)}
        ) as srun:
            listener = threading.Thread(target=self._listen, args=(srun.stderr,), daemon=True)
            listener.start()
            status = self.wait_for(srun)
            listener.join(timeout=5)
        return status if status >= 0 else 128 - status

    def wait_for(self, srun: subprocess.Popen[bytes]) -> int:
        """Its status. When a rank has failed it ends the others, but of a rebooted node's it waits to hear in vain."""
        since_failure = 0
        while since_failure < self.patience_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return srun.wait(timeout=1)
            since_failure += bool(self.told)
        print(f"srun still waits for ranks {self.patience_seconds} s after others failed", file=sys.stderr)
        srun.kill()
        srun.wait()
        return FAILED_STATUS

    def _listen(self, lines: Any) -> None:
        for line in lines:
            if end := told_by_srun(line.decode(errors="replace")):
                self.told.append(end)
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()

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
        slurm.requeue(self.here.job)
        self.keep_away_from(bad_nodes(self.folder, self.config))
        time.sleep(UNTIL_ENDED_SECONDS)

    def keep_away_from(self, nodes: list[str]) -> None:
        """Only a job that waits can be told; this one begins to wait now."""
        for is_last in [False] * (EXCLUDING_TRIES - 1) + [True]:
            try:
                return slurm.exclude(self.here.job, nodes) if nodes else None
            except slurm.SlurmError as error:
                if is_last:
                    print(f"{self.record.name}: it may come to {nodes} again: {error}", file=sys.stderr)
                time.sleep(EXCLUDING_PAUSE_SECONDS)

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


def srun_command(folder: JobFolder, here: Incarnation, config: SlurmConfig) -> list[str]:
    """One process per rank. srun no longer takes --cpus-per-task from the job (since SLURM 22.05)."""
    return [
        "srun",
        "--kill-on-bad-exit=1",
        f"--ntasks={here.ranks}",
        f"--ntasks-per-node={config.tasks_per_node}",
        f"--cpus-per-task={config.cpus_per_task}",
        *config.srun_args,
        *[sys.executable, "-u", "-m", "lediflow.cluster.running.task", str(folder.root)],
    ]


def meeting_point(nodes: list[str], here: Incarnation) -> Mapping[str, str]:
    """Where the ranks find each other: the first node, which is this one, and a port that is free on it now."""
    first = int("".join(filter(str.isdigit, here.job)) or 0) + here.restart
    for offset in range(len(SLURM_PORTS)):
        port = SLURM_PORTS[(first + offset) % len(SLURM_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return {"MASTER_ADDR": nodes[0] if nodes else "127.0.0.1", "MASTER_PORT": str(port)}
    return {}


def newest_checkpoint(record: JobRecord) -> int | None:
    """Images seen at it, by its name."""
    names = [path.name for path in (Path(record.run) / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


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
    patience = slurm.kill_wait() + BEYOND_KILL_WAIT_SECONDS
    config = SlurmConfig(**record.slurm)
    sys.exit(Supervisor(folder, record, config, find_incarnation(), patience).run())


if __name__ == "__main__":
    main(sys.argv[1:])
