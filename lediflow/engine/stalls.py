"""Whom does a run wait for? A pure function of what the heartbeats say.

A collective makes every rank wait for the slowest, so that most ranks of a stalled run are innocent. The rank that is
behind all others in the program is the one they wait for, and its phase says how long that may take. A rank that waits
in a step for another one that saves is no stall until the saving takes too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lediflow.engine.heartbeats import Heartbeat, State
from lediflow.ranges import bounded


@dataclass(kw_only=True)
class WatchdogConfig:
    every_seconds: float = bounded(5.0, above=0)  # between two heartbeats; each is one small file per rank
    starting_seconds: float = bounded(
        3600.0, above=0
    )  # longest stay in building and compiling, first step included
    data_seconds: float = bounded(300.0, above=0)  # longest wait for a batch
    step_seconds: float = bounded(
        300.0, above=0
    )  # longest step; NCCL ends a process after 600 s, without a word about the others
    saving_seconds: float = bounded(1800.0, above=0)  # longest save
    validating_seconds: float = bounded(1800.0, above=0)  # longest validation
    finishing_seconds: float = bounded(1800.0, above=0)  # longest stay after the last step
    silent_seconds: float = bounded(
        60.0, above=0
    )  # a rank whose heartbeat stands still this long is called silent
    grace_seconds: float = bounded(
        30.0, at_least=0
    )  # ranks end themselves this long after another one failed; 0: never
    end_after_seconds: float = bounded(
        600.0, at_least=0
    )  # stalled ranks end themselves this long after the stacks; 0: never

    def limit(self, heartbeat: Heartbeat) -> float:
        """How long a rank may stay where it is."""
        seconds = getattr(self, f"{heartbeat.phase}_seconds")
        return max(seconds, self.starting_seconds) if heartbeat.steps == 0 else seconds


class Sight(NamedTuple):
    """A rank as another one sees it."""

    heartbeat: Heartbeat
    unchanged_seconds: float  # by the observer's clock
    fate: str = ""  # what the observer knows of its process

    @property
    def seconds_in_phase(self) -> float:
        return self.heartbeat.seconds + self.unchanged_seconds

    def __str__(self) -> str:
        beat, seconds = self.heartbeat, self.seconds_in_phase
        return f"rank {beat.rank} on {beat.host} ({beat.phase} for {seconds:.0f} s, {beat.steps} steps done)"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What is wrong, with which ranks: `rank_failed`, `rank_silent` or `stall`."""

    kind: str
    ranks: list[int]
    sentence: str
    seen: list[dict[str, Any]] = field(default_factory=list)  # place and host of each of these ranks

    @property
    def key(self) -> str:
        """The same for two observers, and for as long as nothing changes."""
        return f"{self.kind} {self.ranks} {[(one['steps'], one['beats']) for one in self.seen]}"


def find_trouble(sights: Sequence[Sight], config: WatchdogConfig) -> Trouble | None:
    """The worst that can be seen: a failed rank, else a silent one, else one that stays behind for too long."""
    alive = [sight for sight in sights if sight.heartbeat.state == State.ALIVE]
    if failed := [sight for sight in sights if sight.heartbeat.state == State.FAILED]:
        words = (f"{_name(sight)} failed: {sight.heartbeat.message}" for sight in failed)
        return _trouble("rank_failed", failed, "; ".join(words))
    if silent := [sight for sight in alive if sight.unchanged_seconds > _longest_silence(sight, config)]:
        words = (f"{sight} is {sight.fate}" for sight in silent)
        return _trouble("rank_silent", silent, "; ".join(words))
    behind = _behind(alive)
    if all(sight.seconds_in_phase <= config.limit(sight.heartbeat) for sight in behind):
        return None
    who = ", ".join(map(str, behind))
    if len(behind) == len(alive) > 1:
        return _trouble("stall", behind, f"every rank stands at the same place: {who}")
    longest = max(config.limit(sight.heartbeat) for sight in behind)
    waiting = "; the other ranks wait" if len(alive) > 1 else ""
    return _trouble("stall", behind, f"{who} stays longer than the {longest:.0f} s of its phase{waiting}")


def _behind(alive: Sequence[Sight]) -> list[Sight]:
    first = min((sight.heartbeat.place for sight in alive), default=None)
    return [sight for sight in alive if sight.heartbeat.place == first]


def _longest_silence(sight: Sight, config: WatchdogConfig) -> float:
    has_begun = sight.heartbeat.written > 0
    return config.silent_seconds if has_begun else config.starting_seconds


def _name(sight: Sight) -> str:
    return f"rank {sight.heartbeat.rank} on {sight.heartbeat.host}"


def _trouble(kind: str, sights: Sequence[Sight], sentence: str) -> Trouble:
    seen = [
        {
            "rank": sight.heartbeat.rank,
            "host": sight.heartbeat.host,
            "phase": sight.heartbeat.phase,
            "steps": sight.heartbeat.steps,
            "beats": sight.heartbeat.beats,
            "seconds": round(sight.seconds_in_phase, 1),
        }
        for sight in sights
    ]
    return Trouble(kind=kind, ranks=[sight.heartbeat.rank for sight in sights], sentence=sentence, seen=seen)
