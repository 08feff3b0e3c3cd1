"""What a job said: its log, as it stands or as it grows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.watching.row import Row
from lediflow.errors import UserError

LOOK_EVERY_SECONDS = 1.0  # at a file
ASK_EVERY_SECONDS = 5.0  # the controller, which all users ask
CHUNK = 1 << 20


def log_id(row: Row, asked: str, task: int | None) -> str:
    """The id that the log is named by: of a task, where the job is an array."""
    job = row.record.job_id if row.record else None
    assert job is not None
    if row.record is None or row.record.array is None:
        return job
    if task is None and asked.startswith(f"{job}_"):
        return asked
    if task is None:
        raise UserError(
            f"{row.name} is an array of {row.record.array} tasks, each with a log of its own; "
            f"choose one: --task=0 ... --task={row.record.array - 1}"
        )
    return f"{job}_{task}"


def log_chooser(folder: JobFolder, job: str, rank: int) -> Callable[[], Path | None]:
    if rank:
        return lambda: rank_log(folder, job, rank)
    return lambda: job_log(folder, job)


def missing_log(row: Row, job: str, rank: int) -> str:
    if not rank or row.job is None:
        return f"{row.name}, job {job}, has said nothing yet: {row.state.words}"
    others = speakers(row.job, job)
    which = f"ranks that did: {', '.join(map(str, others))}" if others else "nor did any other but the first"
    return f"rank {rank} of {row.name} said nothing; {which}"


def job_log(folder: JobFolder, job: str) -> Path:
    """Of the supervisor and the first rank, all starts of the job."""
    return folder.log / f"{job}.log"


def rank_log(folder: JobFolder, job: str, rank: int) -> Path | None:
    """Of the newest start in which the rank said something."""
    found = {(speaker, restart): path for restart, speaker, path in rank_logs(folder, job)}
    starts = [restart for speaker, restart in found if speaker == rank]
    return found[rank, max(starts)] if starts else None


def speakers(folder: JobFolder, job: str) -> list[int]:
    """Ranks, besides the first, that said something."""
    return sorted({rank for _, rank, _ in rank_logs(folder, job)})


def rank_logs(folder: JobFolder, job: str) -> Iterator[tuple[int, int, Path]]:
    """Restart, rank and file of each log that is not empty."""
    for path in folder.log.glob(f"{job}-*-rank*.log"):
        match = re.fullmatch(r"(\d+)-rank(\d+)\.log", path.name.removeprefix(f"{job}-"))
        if match and path.stat().st_size:
            yield int(match[1]), int(match[2]), path


def show(path: Path | None, out: BinaryIO, missing: str) -> None:
    """UserError with `missing` where there is nothing to show."""
    if path is None or not path.is_file():
        raise UserError(missing)
    with path.open("rb") as file:
        copy(file, out)


def follow(
    choose: Callable[[], Path | None],
    out: BinaryIO,
    is_over: Callable[[], bool],
    every_seconds: float = LOOK_EVERY_SECONDS,
) -> None:
    """Show the chosen file as it grows, and the next one where the choice changes, until the job is over.

    What comes between the last look at the file and the job's end is shown: the end is asked for first.
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


def seldom(
    ask: Callable[[], bool], seconds: float = ASK_EVERY_SECONDS, clock: Callable[[], float] = time.monotonic
) -> Callable[[], bool]:
    """The question, asked at most so often; no in between."""
    last = -float("inf")

    def answer() -> bool:
        nonlocal last
        if clock() - last < seconds:
            return False
        last = clock()
        return ask()

    return answer


def copy(file: BinaryIO, out: BinaryIO) -> None:
    """From where the file stands to its present end."""
    while chunk := file.read(CHUNK):
        out.write(chunk)
    out.flush()
