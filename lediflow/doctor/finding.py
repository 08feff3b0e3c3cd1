"""What a check of the machine found."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How bad it is; the worst level of all checks is the exit status."""

    OK = 0
    WARNING = 1  # slower, or one feature is missing
    FAULT = 2  # training or sampling fails, or computes wrong numbers


class Finding(NamedTuple):
    """The result of one check; `advice` is empty at level OK."""

    name: str
    level: Level
    found: str
    advice: str = ""
    is_of_node: bool = False  # another node of the same cluster may be better


def ok(name: str, found: str) -> Finding:
    return Finding(name, Level.OK, found)


def first_line(error: Exception) -> str:
    """What an error says, shortened; the name of its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
