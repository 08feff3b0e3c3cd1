"""Notices a run that hangs, says which rank it waits for, and ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lediflow.engine.heartbeats import Phase
from lediflow.engine.ranks import Ranks


@dataclass(kw_only=True)
class WatchdogConfig:
    every_seconds: float = 5.0  # between two heartbeats; each is one small file per rank
    starting_seconds: float = 3600.0  # longest silence while building and compiling, first step included
    data_seconds: float = 300.0  # ... while waiting for a batch
    step_seconds: float = 300.0  # ... in a step; below NCCL's own limit of 600 s, which ends without stacks
    saving_seconds: float = 1800.0  # ... while saving
    validating_seconds: float = 1800.0  # ... between two validation batches
    finishing_seconds: float = 1800.0  # ... after the last step
    silent_seconds: float = 60.0  # a rank whose heartbeat stands still this long is called silent
    grace_seconds: float = 30.0  # ranks end this long after another one failed
    end_after_seconds: float = 600.0  # a stalled rank ends itself this long after the stacks; 0: never


class Watchdog:
    """`with Watchdog(...) as watchdog`: then `beat(phase)` wherever the main thread enters a phase."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        config: WatchdogConfig,
        report: Callable[..., None],
        *,
        session: str,
    ) -> None:
        self.folder, self.ranks, self.config, self.report, self.session = (
            folder,
            ranks,
            config,
            report,
            session,
        )

    def beat(self, phase: Phase | str) -> None:
        """The main thread enters `phase` (or starts it anew)."""

    def step_done(self) -> None:
        """One more optimizer step is behind this rank."""

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
