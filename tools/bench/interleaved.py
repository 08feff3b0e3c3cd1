"""Measuring cases in turns, so that their ratios hold on a noisy machine, with rows that outlive an interruption."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import Row, certificate, laps_of

from lediflow.errors import UserError
from lediflow.evaluation.results import write_results
from lediflow.records import one_line

WARM_UP = 3  # calls before a case is measured for the first time
LONGEST_REASON = 500  # characters of an error in a row


@dataclass
class Case:
    """A function to measure: `about` identifies its row, `notes` are further columns."""

    about: Row
    batch: int  # images per call
    run: Callable[[], object]
    device: torch.device  # whose events time it; a CPU: the wall clock
    notes: Row = field(default_factory=dict)
    laps: list[float] = field(default_factory=list)  # milliseconds of each call

    def numbers(self, rounds: int) -> Row:
        """The measured columns; `rounds` is the number of turns with the other cases, 0 if measured alone."""
        median = statistics.median(self.laps)
        return {
            "p50 ms": median,
            "p95 ms": statistics.quantiles(self.laps, n=20, method="inclusive")[-1],
            "ms/img": median / self.batch,
            "calls": len(self.laps),
            "rounds": rounds,
            **self.notes,
        }


class Journal:
    """Rows in the order of their first measurement. The file, if any, is written anew with each of them."""

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        self.certificate = certificate()
        self.known: dict[tuple[tuple[str, object], ...], Row] = {}

    @property
    def rows(self) -> list[Row]:
        return list(self.known.values())

    def put(self, about: Row, numbers: Row) -> None:
        """Add a row, or replace the one about the same."""
        self.known[tuple(about.items())] = {**about, **numbers}
        if self.path is not None:
            write_results(self.path, {"rows": self.rows}, self.certificate)


@contextmanager
def kept_going(about: Row, journal: Journal) -> Iterator[None]:
    """An error becomes a row: what else there is to measure is still worth its time."""
    try:
        yield
    except (UserError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        journal.put(about, {"error": reason[:LONGEST_REASON]})
        print(f"{about}: {reason}", file=sys.stderr, flush=True)


@torch.no_grad()
def measure_alone(case: Case, seconds: float, journal: Journal) -> None:
    """A first row of a case, so that a run which is cut off before the rounds has one."""
    case.laps = laps_of(case.run, device=case.device, warmup=WARM_UP, seconds=seconds)
    journal.put(case.about, case.numbers(rounds=0))


@torch.no_grad()
def measure_in_turns(cases: Sequence[Case], seconds: float, rounds: int, journal: Journal) -> None:
    """Measure every case in every round, each for about `seconds` in all. The rows replace those measured alone."""
    for case in cases:
        case.laps = []
    for finished in range(1, rounds + 1):
        for case in cases:
            case.laps += laps_of(case.run, device=case.device, warmup=1, seconds=seconds / rounds)
            journal.put(case.about, case.numbers(finished))
