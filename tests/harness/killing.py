"""A training that is killed again and again, and started again until it ends."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.killed_rank import PLACES
from harness.processes import SECONDS, Finished, Started, start_on_ranks

ENGINES = ("engine=deepspeed", "engine.zero=2")
Engine = tuple[int, tuple[str, ...]]  # ranks, and the options of the engine
TWO: Engine = (2, ENGINES)


@dataclass(frozen=True)
class Kill:
    """Which rank dies where; or from outside, so many seconds after the first step of the attempt."""

    rank: int = 0
    place: str | None = None
    call: int = 1
    seconds: float | None = None

    def options(self, ranks: int) -> list[object] | None:
        """What the ranks are told; one that is not there passes it on to another."""
        return [self.rank % ranks, self.place, self.call] if self.place else None


@dataclass
class Killed:
    """A run folder, its command, and the records of all attempts."""

    folder: Path
    command: Sequence[str]
    records: Path
    attempts: int = 0
    seen: list[str] = field(default_factory=list)  # what happened, for messages

    def attempt(self, engine: Engine, kill: Kill | None) -> list[Finished]:
        """Start all ranks; when one dies the others are ended, as a launcher would."""
        ranks, options = engine
        self.attempts += 1
        record = self.records / f"{self.attempts:03d}"
        settings = json.dumps({"record": str(record), "kill": kill.options(ranks) if kill else None})
        started = start_on_ranks(
            ranks, "tests.harness.killed_rank", settings, *self.command, *options, f"run={self.folder}"
        )
        self.seen.append(f"attempt {self.attempts} on {ranks} ranks {' '.join(options)}: {kill}")
        if kill and kill.seconds is not None:
            kill_from_outside(started, kill, Path(f"{record}-0.jsonl"))
        return ended_together(started)

    def steps(self) -> list[dict]:
        """The finished steps that still hold: a later attempt that began earlier has withdrawn the rest."""
        standing: list[dict] = []
        for attempt in range(1, self.attempts + 1):
            for path in sorted(self.records.glob(f"{attempt:03d}-*.jsonl")):
                lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
                for line in lines:
                    if "begins" in line:
                        standing = [
                            step
                            for step in standing
                            if step["images_seen"] <= line["begins"] or step["attempt"] == attempt
                        ]
                    else:
                        standing.append(line | {"attempt": attempt})
        return standing


def kill_from_outside(started: Sequence[Started], kill: Kill, record: Path) -> None:
    """SIGKILL some time after the first step; a run that ends before is left alone."""
    deadline = time.monotonic() + SECONDS
    while not (record.is_file() and '"ids"' in record.read_text()):
        if any(process.process.poll() is not None for process in started) or time.monotonic() > deadline:
            return
        time.sleep(0.002)
    time.sleep(kill.seconds or 0.0)
    started[kill.rank % len(started)].kill()


def ended_together(started: Sequence[Started]) -> list[Finished]:
    """Wait for all; once one has failed, end the others."""
    deadline = time.monotonic() + SECONDS
    try:
        while any(process.process.poll() is None for process in started):
            if any(process.process.poll() for process in started):
                break
            assert time.monotonic() < deadline, "\n".join(process.output() for process in started)
            time.sleep(0.01)
    finally:
        for process in started:
            process.kill()
    return [Finished(process.process.wait(), process.output()) for process in started]


def random_kills(seed: int, count: int) -> list[Kill]:
    """Every place in turn, in random order and at random calls, some kills from outside; those in the export last."""
    chance = random.Random(seed)
    last = [place for place in PLACES if "export" in place]
    places = [place for place in PLACES if place not in last] + ["outside"]
    rounds = [chance.sample(places, len(places)) for _ in range(-(-count // len(places)))]
    chosen = [*[place for some in rounds for place in some][: count - len(last)], *last]
    return [random_kill(place, chance) for place in chosen]


def random_kill(place: str, chance: random.Random) -> Kill:
    if place == "outside":
        return Kill(rank=chance.randrange(2), seconds=chance.uniform(0, 0.6))
    return Kill(rank=rank_at(place, chance), place=place, call=call_at(place, chance))


def rank_at(place: str, chance: random.Random) -> int:
    """Some places are visited by the first rank alone."""
    everywhere = ("forward", "step", "slice", "copied")
    return chance.randrange(2) if any(word in place for word in everywhere) else 0


def call_at(place: str, chance: random.Random) -> int:
    """Steps come often, saves now and then, an export once."""
    if "export" in place:
        return 1
    return chance.randint(1, 6) if "step" in place or "forward" in place else chance.randint(1, 3)
