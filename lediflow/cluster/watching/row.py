"""One line of the overview: a job, or a run without one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.watching.goodput import Held
from lediflow.cluster.watching.kinds import Kind, State
from lediflow.cluster.watching.run_facts import RunFacts


@dataclass(frozen=True, kw_only=True)
class Row:
    """A job, or a run without one."""

    name: str
    run: Path
    state: State
    facts: RunFacts
    held: Held
    job: JobFolder | None = None
    record: JobRecord | None = None

    @property
    def share(self) -> float | None:
        """Of the images asked for."""
        seen, total = self.facts.images_seen, self.facts.total_images
        return None if seen is None or not total else seen / total

    @property
    def images_per_second(self) -> float | None:
        return self.facts.images_per_second if self.state.kind is Kind.RUNNING else None

    @property
    def seconds_left(self) -> float | None:
        speed, total = self.images_per_second, self.facts.total_images
        return (total - (self.facts.images_seen or 0)) / speed if speed and total else None

    @property
    def gpu_hours(self) -> float | None:
        """None where nobody knows: of runs without a job."""
        return self.held.gpu_hours if self.record else None

    @property
    def goodput(self) -> float | None:
        has_trained = self.facts.events and self.held.seconds > 0
        return min(1.0, self.facts.training_time.standing / self.held.seconds) if has_trained else None
