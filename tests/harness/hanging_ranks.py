"""Runs of two ranks that hang, each in its own way: `python hanging_ranks.py FOLDER`.

Every rank is a process of its own, forked so that all share the seconds of imports. FOLDER/<way>/ then holds a rank's
log `<rank>.log` and what its watchdog wrote; FOLDER/statuses.json says how each ended (-9: killed at the end).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from harness.patience import wait_until
from lediflow.engine.hang_detection import Limits, read_heartbeat
from lediflow.engine.ranks import Ranks
from lediflow.engine.watchdog import Watchdog

FOR_EVER = 100


def the_loader_that_hangs():
    time.sleep(FOR_EVER)


def the_collective_that_waits():
    time.sleep(FOR_EVER)


def the_extension_that_holds_the_lock():
    ctypes.PyDLL(None).sleep(FOR_EVER)  # unlike CDLL, it keeps Python's lock


WAYS = {
    "data": the_loader_that_hangs,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "held": the_extension_that_holds_the_lock,
    "failed": lambda: 1 / 0,
}
LATE_AFTER = {"data": 1.0}  # seconds; the other ways are found before anyone is late


def train(folder: Path, way: str, rank: int) -> None:
    """Three steps, then rank 1 hangs and rank 0 waits for it."""
    limit = LATE_AFTER.get(way, FOR_EVER)
    limits = Limits(
        every_seconds=0.1, data_seconds=limit, step_seconds=limit, silent_seconds=2.5, grace_seconds=0.5,
        end_after_seconds=1,
    )  # fmt: skip

    def report(event, **values):
        with (folder / "reports.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "by": rank, **values}) + "\n")

    with Watchdog(folder, Ranks(rank=rank, world_size=2), limits, report, session="only") as watchdog:
        for step in range(4):
            watchdog.beat("data")
            if step == 3 and rank == 1:
                wait_until(partial(has_written_step, folder, step), FOR_EVER)
                WAYS[way]()
            watchdog.beat("step")
            if step == 3:
                the_collective_that_waits()
            watchdog.step_done()


def has_written_step(folder: Path, step: int) -> bool:
    """Whether rank 1's heartbeat shows that it waits for the data of this step."""
    found = read_heartbeat(folder / "heartbeats", rank=1, session="only")
    return found is not None and (found.steps, found.phase) == (step, "data")


def fork(folder: Path, way: str, rank: int) -> int:
    """Start one rank; its process id."""
    if child := os.fork():
        return child
    folder.mkdir(exist_ok=True)
    output = os.open(folder / f"{rank}.log", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO)
    try:
        train(folder, way, rank)
    finally:
        os._exit(3)


def main(folder: Path) -> None:
    started = {(way, rank): fork(folder / way, way, rank) for way in WAYS for rank in (0, 1)}
    statuses: dict[str, dict[int, int]] = {way: {} for way in WAYS}
    for (way, rank), child in started.items():
        if rank == 0 or way == "data":
            statuses[way][rank] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for (way, rank), child in started.items():
        if rank not in statuses[way]:
            os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
            statuses[way][rank] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
