"""The summary at the end of a training: what came out, and the commands that use the run.

flow (learned prior) in runs/mine/flow is finished: 1,000,000 of 1,000,000 images in 3 h 05 min
  loss      0.0412, held out 0.0437 (lowest 0.0431 at 917,504 images)
  speed     812 images/s
  pictures  runs/mine/flow/pictures/000001000000
  weights   runs/mine/flow/export

next:
  # images
  python -m lediflow.sample run=runs/mine/flow sampler=runs/mine/sampler output=runs/mine/flow/samples
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lediflow.config.composition.advice import as_command, existing_experiment, hydra_text, shared_overrides
from lediflow.config.composition.literal import double_quoted
from lediflow.config.composition.schema import TrainCommand
from lediflow.models.export import exported_classes, renamed_classes
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.stages import Place, place_of
from lediflow.text import Facts, duration, facts_table
from lediflow.tracking.event_log import Event, number, parse_event
from lediflow.training.bad_steps import ALL_FINITE, name_some

TAIL_BYTES = 2**18  # of the event log: enough for the last events, at any length of the run
NAMES = {"flow": "flow", "latent_sampler": "sampler"}  # of the folder that a command suggests

Steps = list[tuple[str, str]]  # purpose and command


def summary(command: TrainCommand, seconds: float) -> str:
    """The summary of a training that has just ended in its run folder; `seconds` since the command started."""
    folder = RunFolder(Path(command.run))
    facts = folder.exported_facts()
    seen, wanted = facts.get("trained_images") or facts["images_seen"], command.train.images
    head = (
        f"{command.stage.name} ({command.prior} prior) in {folder.root} is finished: "
        f"{seen:,} of {wanted:,} images; this start took {duration(seconds)}"
    )
    events = last_events(folder.events)
    results = facts_table(
        [*last_numbers(events), *newest_pictures(events, folder), ("weights", str(folder.export))]
    )
    steps = "\n".join(f"  # {purpose}\n  {line}" for purpose, line in next_steps(command, facts))
    return f"\n{head}\n{results}\n\nnext:\n{steps}"


def last_events(path: Path) -> dict[str, Event]:
    """The newest event of each name in the last TAIL_BYTES of the log."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return {event["event"]: event for line in lines if (event := parse_event(line)) is not None}


def last_numbers(events: Mapping[str, Event]) -> Facts:
    """Losses and speed of the last events, as far as they are known."""
    trained, validated = events.get("train", {}), events.get("validation", {})
    losses = [] if (loss := number(trained.get("loss"))) is None else [shown_loss(loss, trained)]
    if (held_out := number(validated.get("averaged_loss", validated.get("loss")))) is not None:
        losses.append(f"held out {shown_loss(held_out, validated)}{lowest(validated)}")
    found = [("loss", ", ".join(losses))] if losses else []
    if (bad := events.get("bad_step")) is not None:
        samples = name_some(bad.get("samples") or []) or ALL_FINITE
        found.append(
            ("skipped", f"steps without a finite gradient, last at {bad['images_seen']:,} images: {samples}")
        )
    if (speed := number(trained.get("images_per_second"))) is not None:
        found.append(("speed", f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:.2g} images/s"))
    return found


def shown_loss(loss: float, event: Event) -> str:
    return f"{loss:.4g}" if math.isfinite(loss) else f"{loss} (not finite) at {event['images_seen']:,} images"


def newest_pictures(events: Mapping[str, Event], folder: RunFolder) -> Facts:
    """The folder of the newest pictures made while training; empty if none is known."""
    made = events.get("pictures")
    return [] if made is None else [("pictures", str(folder.pictures / f"{made['images_seen']:012d}"))]


def lowest(validated: Event) -> str:
    """The lowest held-out loss and its place, in brackets; empty if it is the last one or unknown."""
    best, seen = number(validated.get("best_loss")), validated.get("best_images_seen")
    is_known = best is not None and isinstance(seen, int) and seen != validated["images_seen"]
    return f" (lowest {best:.4g} at {seen:,} images)" if is_known else ""


def next_steps(command: TrainCommand, facts: Mapping[str, Any]) -> Steps:
    """Commands that use the run, with the partner that its training used, or one that is found next to it."""
    run, place = Path(command.run), place_of(command.stage.name)
    has_parent = command.parent is not None and place != "auxiliary" and command.prior != "gaussian"
    shown = [Path(str(command.parent)), run] if has_parent else [run]
    if place == "auxiliary":
        steps = [
            ("the flow from this prior", training(command, "flow")),
            ("the sampler of its latents", training(command, "latent_sampler")),
        ]
    elif place is None:
        steps = []
    elif command.prior == "gaussian":
        steps = generating(command, run, None)
    else:
        other: Place = "latent_sampler" if place == "flow" else "flow"
        found = given_partner(command, other) or partner(run, other, facts)
        steps = [] if found else [("the model that it samples with", training(command, other))]
        pair = {place: run, other: found or run.parent / NAMES[other]}
        steps += generating(command, pair["flow"], pair["latent_sampler"])
        shown += [found] if found else []
    report = python("report", *map(str, shown), "--output", str(run / "report.html"))
    return [*steps, ("curves, pictures and the time line, as a page", report)]


def training(command: TrainCommand, stage: str) -> str:
    """The command that trains a dependent stage on the same data, in a folder next to the run."""
    parent = command.run if place_of(command.stage.name) == "auxiliary" else command.parent
    experiment = existing_experiment(f"{command.name}_{stage}") or existing_experiment(command.name)
    words = [f"experiment={experiment}"] * bool(experiment)
    words += [f"stage={stage}", option("parent", parent), *shared_overrides(command)]
    return as_command([*words, option("run", Path(command.run).parent / NAMES[stage])])


def generating(command: TrainCommand, flow: Path, sampler: Path | None) -> Steps:
    """Commands that sample and evaluate."""
    runs = [option("run", flow)]
    runs += [] if sampler is None else [option("sampler", sampler)]
    data = option("data.path", command.data.path)
    return [
        ("images", python("sample", *runs, option("output", flow / "samples"), "count=64")),
        ("quality against cost", python("evaluate", *runs, data)),
    ]


def option(key: str, path: Path | str | None) -> str:
    """An override with a path, which a shell's quotes do not make unreadable."""
    text = hydra_text(str(path))
    return f"{key}={text}" if text == str(path) else f"{key}={double_quoted(str(path))}"


def python(command: str, *words: str) -> str:
    """A command line, quoted for a shell."""
    return shlex.join(["python", "-m", f"lediflow.{command}", *words])


def given_partner(command: TrainCommand, place: Place) -> Path | None:
    """The run that provides `place`, as the training or its pictures used it; None if they used none."""
    pictures = command.train.pictures
    given = pictures.flow if place == "flow" else command.sampler or pictures.sampler
    return None if given is None else Path(given)


def partner(run: Path, place: Place, facts: Mapping[str, Any]) -> Path | None:
    """The newest finished run next to this one for `place`, with the same parent and classes; None if none."""
    found = []
    for folder in map(RunFolder, sorted(run.parent.iterdir())):
        try:
            other = folder.exported_facts() if folder.is_exported else {}
        except RecordError:
            continue
        if (
            place_of(other.get("stage", "")) == place
            and same_parent(other, facts)
            and same_classes(other, facts)
        ):
            found.append(folder.root)
    return max(found, key=lambda root: (root / "export").stat().st_mtime, default=None)


def same_parent(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two runs were trained with the same auxiliary model."""
    hashes = [(facts.get("parent") or {}).get("sha256") for facts in (first, second)]
    return hashes[0] is not None and hashes[0] == hashes[1]


def same_classes(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether a label means the same to the models of two runs, as far as both have classes."""
    numbers = {exported_classes(facts) for facts in (first, second)} - {0}
    return len(numbers) < 2 and not renamed_classes(first, (second.get("data") or {}).get("classes") or [])
