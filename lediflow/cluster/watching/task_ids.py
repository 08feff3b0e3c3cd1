"""SLURM's names for jobs, arrays, and tasks of arrays: 1234, 1234_5, 1234_[0-3,7%2]."""

from __future__ import annotations

import re

ELLIPSIS = "..."  # squeue leaves out the rest of a long list


def tasks(job: str, array: int | None) -> list[str]:
    """Ids of an array's tasks."""
    return [f"{job}_{task}" for task in range(array or 0)]


def is_of(entry: str, job: str) -> bool:
    """Whether a line of SLURM's about `entry` is about the job or task `job` (1234 or 1234_5)."""
    if entry == job:
        return True
    array, _, listed = entry.partition("_")
    wanted, _, task = job.partition("_")
    if array != wanted or not listed.startswith("[") or not task:
        return False
    return ELLIPSIS in listed or int(task) in expanded(listed)


def expanded(listed: str) -> set[int]:
    """[0-3,7%2] as {0, 1, 2, 3, 7}."""
    numbers: set[int] = set()
    for part in re.sub(r"[\[\]]|%\d+", "", listed).split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
