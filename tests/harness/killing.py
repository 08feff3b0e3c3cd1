"""A training that is killed again and again, and started again until it ends."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.forks import Forked, Forks
from harness.killed_rank import PLACES
from harness.patience import wait_until
from harness.processes import SECONDS, Finished, slurm_places
from lediflow.tracking.event_log import read_events

Engine = tuple[int, tuple[str, ...]]  # ranks, and the options of the engine
TWO: Engine = (2, ("engine=deepspeed", "engine.zero=2"))
KILLED = -9


@dataclass(frozen=True)
class Kill:
    """Who dies where: at a place of killed_rank.PLACES, or from outside when some seconds have passed."""

    place: str | None = None
    rank: int | None = 0  # None: all at once, as where a machine loses power
    call: int = 1
    seconds: float = 0.0  # since the first step; before the first step, since the start, if negative
    damage: str | None = None  # what a disk then does to the newest checkpoint (DAMAGES)

    def ranks(self, count: int) -> list[int]:
        """A rank that is not there passes it on to another."""
        return list(range(count)) if self.rank is None else [self.rank % count]


@dataclass
class Attempt:
    """What one start of the run has left."""

    engine: Engine
    ranks: list[Finished]
    records: list[list[dict[str, Any]]]  # of each rank

    @property
    def statuses(self) -> list[int]:
        return [rank.status for rank in self.ranks]

    @property
    def began(self) -> set[int]:
        """Images seen where the ranks began; those that came so far."""
        return {line["begins"] for record in self.records for line in record if "begins" in line}

    @property
    def killed(self) -> set[str]:
        """Places where ranks died."""
        return {line["killed"] for record in self.records for line in record if "killed" in line}

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The samples of each step on every rank, with the engine that made it."""
        return [line | {"engine": self.engine} for record in self.records for line in record if "ids" in line]


@dataclass
class Killed:
    """A run folder, its command, and all attempts."""

    folder: Path
    command: Sequence[str]
    records: Path
    forks: Forks
    attempts: list[Attempt] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # what happened, for messages
    promised: int = 0  # images seen at the last checkpoint that the log says was saved

    def attempt(self, engine: Engine, kill: Kill | None = None) -> Attempt:
        """Start all ranks; when one dies the others are ended, as a launcher would."""
        whole = self.newest_whole()
        assert whole >= self.promised, ("a saved checkpoint is gone", self.seen)
        logged = len(self.saved())
        self.seen.append(f"attempt {len(self.attempts) + 1} from {whole} on {engine}: {kill}")
        attempt = self._run(engine, kill)
        self.attempts.append(attempt)
        assert attempt.began <= {whole}, ("began elsewhere than at the newest whole one", self.seen)
        self.promised = max([self.promised, *self.saved()[logged:]])
        if kill and kill.damage and (whole := self.newest_whole()):
            DAMAGES[kill.damage](self.folder / "checkpoints" / f"{whole:012d}")
            self.promised = 0
        return attempt

    def _run(self, engine: Engine, kill: Kill | None) -> Attempt:
        count, options = engine
        record = self.records / f"{len(self.attempts):03d}"
        paths = [Path(f"{record}-{rank}.jsonl") for rank in range(count)]
        deaths = [[kill.place, kill.call]] if kill and kill.place else []
        settings = json.dumps(
            {"record": str(record), "ranks": kill.ranks(count) if kill else [], "deaths": deaths}
        )
        arguments = [settings, *self.command, *options, f"run={self.folder}"]
        started = [
            self.forks.start("harness.killed_rank", *arguments, env=place) for place in slurm_places(count)
        ]
        if kill and not kill.place:
            kill_from_outside(started, kill, paths[0])
        return Attempt(engine, ended_together(started), [lines(path) for path in paths])

    def saved(self) -> list[int]:
        """Images seen at the checkpoints that the log tells of."""
        log = read_events(self.folder / "events.jsonl")
        return [event["images_seen"] for event in log if event["event"] == "checkpoint"]

    def newest_whole(self) -> int:
        """Images seen at the newest checkpoint whose files are those of its manifest, bit for bit; 0: there is none."""
        folders = (self.folder / "checkpoints").glob("[0-9]*")
        return max([int(folder.name) for folder in folders if is_whole(folder)], default=0)

    def steps(self) -> list[dict[str, Any]]:
        """The finished steps that still hold: an attempt that began earlier has withdrawn the rest."""
        standing: list[dict[str, Any]] = []
        for attempt in self.attempts:
            if attempt.began:
                (begins,) = attempt.began
                standing = [step for step in standing if step["images_seen"] <= begins]
            standing += attempt.steps
        return standing


def lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a record file; a line that is still being written is left out."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.is_file() else []


def is_whole(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError):
        return False
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == sums


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(folder: Path) -> None:
    path = next(folder.glob("slice-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_a_slice(folder: Path) -> None:
    next(folder.glob("slice-*")).unlink()


def tear_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate, "bit flipped": flip_a_bit, "slice lost": lose_a_slice, "manifest torn": tear_the_manifest,
}  # fmt: skip


def kill_from_outside(started: Sequence[Forked], kill: Kill, record: Path) -> None:
    """SIGKILL some time after the first step, or before it."""
    if kill.seconds >= 0:

        def has_stepped() -> bool:
            return any("ids" in line for line in lines(record))

        wait_until(lambda: has_stepped() or any_ended(started), SECONDS, pause_seconds=0.002)
        if not has_stepped():
            return
    time.sleep(abs(kill.seconds))  # a moment drawn at random, not a wait for something
    for rank in kill.ranks(len(started)):
        started[rank].kill()


def ended_together(started: Sequence[Forked]) -> list[Finished]:
    """Wait for all; once one has failed, end the others."""
    are_over = wait_until(lambda: None not in statuses(started) or any(statuses(started)), SECONDS, 0.01)
    for rank in started:
        rank.kill()
    wait_until(lambda: None not in statuses(started), SECONDS, 0.002)
    assert are_over, "\n".join(rank.output() for rank in started)
    return [rank.finished() for rank in started]


def any_ended(started: Sequence[Forked]) -> bool:
    return any(status is not None for status in statuses(started))


def statuses(started: Sequence[Forked]) -> list[int | None]:
    return [rank.poll() for rank in started]


def random_kills(places: Sequence[str], chance: random.Random) -> list[Kill]:
    """Each place once and as many kills from outside as make a quarter, in random order, some with a damaged disk."""
    chosen: list[str | None] = [*places, *[None] * (len(places) // 3)]
    return [random_kill(place, chance) for place in chance.sample(chosen, len(chosen))]


def random_kill(place: str | None, chance: random.Random) -> Kill:
    damage = chance.choice([*DAMAGES]) if chance.random() < 0.2 else None
    rank = chance.choice([0, 1, None])
    if place is None:
        return Kill(rank=rank, seconds=chance.uniform(-3, 1), damage=damage)
    often, is_everyones = PLACES[place].often, PLACES[place].is_everyones
    return Kill(place, rank if is_everyones else 0, chance.randint(1, often), damage=damage)
