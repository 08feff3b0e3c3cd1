"""Logs of a job: shown as they are, or followed as they grow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.watching.overview import JobRow
from lediflow.errors import UserError

FILE_SECONDS = 1.0  # between two looks at a file
QUEUE_SECONDS = 5.0  # between two queries of the controller, which serves all users
CHUNK = 1 << 20  # bytes


def log_id(row: JobRow, name: str, task: int | None) -> str:
    """The SLURM id in the name of the log; for an array that of the task in `name` or `task`, UserError without one."""
    job = row.record.job_id if row.record else None
    assert job is not None
    if row.record is None or row.record.array is None:
        return job
    if task is None and name.startswith(f"{job}_"):
        return name
    if task is None:
        raise UserError(
            f"{row.name} is an array of {row.record.array} tasks, each with its own log; "
            f"choose one: --task=0 ... --task={row.record.array - 1}"
        )
    return f"{job}_{task}"


def log_chooser(folder: JobFolder, job: str, rank: int) -> Callable[[], Path | None]:
    """A function that returns the current log of a rank, which for ranks other than 0 changes with each attempt."""
    if rank:
        return lambda: rank_log(folder, job, rank)
    return lambda: job_log(folder, job)


def missing_log(row: JobRow, job: str, rank: int) -> str:
    """Error message for a log that does not exist."""
    if not rank or row.job is None:
        return f"{row.name}, job {job}, has no output yet: {row.state.words}"
    others = ranks_with_output(row.job, job)
    which = (
        f"ranks with output: {', '.join(map(str, others))}"
        if others
        else "neither has any other except rank 0"
    )
    return f"rank {rank} of {row.name} has no output; {which}"


def job_log(folder: JobFolder, job: str) -> Path:
    """Log of the supervisor and rank 0, for all attempts under this id."""
    return folder.log / f"{job}.log"


def rank_log(folder: JobFolder, job: str, rank: int) -> Path | None:
    """Log of a rank in the newest attempt in which it has output; None if there is none."""
    found = {restart: path for restart, other, path in rank_logs(folder, job) if other == rank}
    return found[max(found)] if found else None


def ranks_with_output(folder: JobFolder, job: str) -> list[int]:
    """Ranks other than 0 that have output in any attempt."""
    return sorted({rank for _, rank, _ in rank_logs(folder, job)})


def rank_logs(folder: JobFolder, job: str) -> Iterator[tuple[int, int, Path]]:
    """Restart, rank and path of each log that is not empty, of ranks other than 0."""
    for path in folder.log.glob(f"{job}-*-rank*.log"):
        match = re.fullmatch(r"(\d+)-rank(\d+)\.log", path.name.removeprefix(f"{job}-"))
        if match and path.stat().st_size:
            yield int(match[1]), int(match[2]), path


def show(path: Path | None, out: BinaryIO, missing: str) -> None:
    """Copy a file to `out`; UserError with the message `missing` if there is none."""
    if path is None or not path.is_file():
        raise UserError(missing)
    with path.open("rb") as file:
        copy(file, out)


def follow(
    choose: Callable[[], Path | None],
    out: BinaryIO,
    is_over: Callable[[], bool],
    every_seconds: float = FILE_SECONDS,
) -> None:
    """Copy the chosen file to `out` as it grows, and the next one when the choice changes, until the job is over.

    Output between the last look at the file and the end of the job is not lost: `is_over` is called before that look.
    """
    path: Path | None = None
    file: BinaryIO | None = None
    is_last = False
    while True:
        if file is not None:
            copy(file, out)
        chosen = choose()
        if chosen != path and chosen is not None and chosen.is_file():
            if file is not None:
                file.close()
            path, file = chosen, chosen.open("rb")
            continue
        if is_last:
            break
        is_last = is_over()
        if not is_last:
            time.sleep(every_seconds)
    if file is not None:
        file.close()


def at_most_every(
    ask: Callable[[], bool], seconds: float = QUEUE_SECONDS, clock: Callable[[], float] = time.monotonic
) -> Callable[[], bool]:
    """`ask`, but called at most once in `seconds`; False in between."""
    last = -float("inf")

    def answer() -> bool:
        nonlocal last
        if clock() - last < seconds:
            return False
        last = clock()
        return ask()

    return answer


def copy(file: BinaryIO, out: BinaryIO) -> None:
    """Copy from the file's position to its present end."""
    while chunk := file.read(CHUNK):
        out.write(chunk)
    out.flush()
