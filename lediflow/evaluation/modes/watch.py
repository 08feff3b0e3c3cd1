"""`--watch RUN`: evaluates each new checkpoint of a run that trains, and writes the result to the run's event log.

    {"event": "evaluation", "images_seen": 4096, "midpoint_2": {"mmd_unbiased": 1.31, "frechet": 9.6, ...}, ...}

A checkpoint of a flow is measured with the given latent sampler, one of a latent sampler with the given flow, one of an
auxiliary model by the diagnostics of its prior. The averaged weights are used, as in an export. The watcher may be
started before, during or after the training, stopped at any time and started again: a checkpoint that was evaluated is
not evaluated again. Its options stay those of the first start, so that the numbers in the log are comparable. While
there is nothing to do it prints what it waits for. It ends with the last checkpoint of the training.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lediflow.claims import named, visible_names
from lediflow.disk import write_json
from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder, find_fault
from lediflow.errors import UserError
from lediflow.evaluation.config import request
from lediflow.evaluation.metrics import logged_keys
from lediflow.evaluation.modes.metrics import PLACES, evaluate_run
from lediflow.evaluation.modes.prior import evaluate_prior
from lediflow.evaluation.references import open_shards
from lediflow.evaluation.session import RESULTS, Session
from lediflow.models.export import WEIGHTS, save_weights
from lediflow.records import as_record, changes, leaves, read_record
from lediflow.run_folder import OWN, REWRITTEN, RunFolder, has_ended, trained_images
from lediflow.stages import STAGES, Place, place_of
from lediflow.tracking.event_log import JsonlTracker, read_events

COSTS = ("ms_per_image", "nfe")  # entries of a row that the event log keeps besides the metrics
ASKED = {"train": {"images": int, "patience_images": int | None}}
EVALUATED = Path("results") / "checkpoints"
WATCHED = "watched.json"  # what the first watcher of a run was asked for
# options that differ between watchers of the same numbers: how they run, and paths, whose contents are compared
REPEAT = "use the former options, or measure exported weights with others: run=RUN output=FOLDER"
FREE = ("watch", "watch_seconds", "device", *PLACES)


def watch(session: Session) -> None:
    """Evaluate every checkpoint of the run, until the last one of its training."""
    assert session.command.watch is not None
    folder = RunFolder(Path(session.command.watch))
    with session.group.together(f"looking at {folder.root}"):
        check_watched(session, folder)
    last_note = ""
    while True:
        # before looking for a checkpoint: the training may write its last one and end in between
        was_finished = session.group.broadcast(is_finished(folder))
        path = session.group.broadcast(next_checkpoint(folder) if session.group.is_first else None)
        if path is not None or was_finished:
            asked = checked_request(session, folder)
        if path is not None:
            evaluate_checkpoint(session, folder, Checkpoint(path), asked)
        elif was_finished:
            session.say(f"watched: {folder.root} has no more checkpoints to come")
            return
        else:
            if (note := awaited(folder)) != last_note:
                session.note(note)
                last_note = note
            time.sleep(session.command.watch_seconds)


def check_watched(session: Session, folder: RunFolder) -> None:
    """UserError unless the run exists, or can still begin: in an empty or new folder, in a folder that exists."""
    if not folder.root.parent.is_dir():
        raise UserError(
            f"watch={folder.root}: there is no folder {folder.root.parent}; give the run folder of lediflow.train"
        )
    others = [name for name in visible_names(folder.root) if name not in OWN]
    if others and not folder.is_run:
        raise UserError(
            f"watch={folder.root} is not a run (found {named(others)}), and none can begin in a folder with other "
            "files; give the run folder of lediflow.train"
        )


def checked_request(session: Session, folder: RunFolder) -> dict[str, Any]:
    """What this watcher's numbers depend on; UserError if earlier checkpoints were evaluated with something else."""
    now, path = request_of(session), folder.root / EVALUATED / WATCHED
    with session.group.together(f"reading {path}"):
        before = read_record(path, REPEAT) if path.exists() else now
        if changed := changes(before, now):
            raise UserError(
                f"watch={folder.root}: earlier checkpoints were evaluated with other options ({changed}), and the "
                f"numbers in one log must be comparable; {REPEAT}"
            )
    return now


def request_of(session: Session) -> dict[str, Any]:
    """The options that numbers depend on, by dotted name, and what the files that they name contain."""
    command = session.command
    options = {
        name: value
        for name, value in leaves(request(command)["options"])
        if name.rpartition(".")[-1] not in FREE
    }
    if partner := command.sampler or command.run:
        role = "the sampler of the watched flow" if command.sampler else "the flow of the watched sampler"
        session.models.require_export(RunFolder(Path(partner)), role, "python -m lediflow.train ...")
        options[f"weights of {role}"] = session.models.hashes(partner, None)["flow"]
    for name, shards in (("data.path", command.data.path), ("data.photographs", command.data.photographs)):
        options[f"fingerprint of {name}"] = open_shards(session, shards).index.fingerprint if shards else None
    found: dict[str, Any] = json.loads(json.dumps(options | {"features": session.extractor.record}))
    return found


def awaited(folder: RunFolder) -> str:
    """What the watcher waits for, as a sentence."""
    if not folder.is_run:
        return (
            f"there is no run in {folder.root} yet; waiting until `python -m lediflow.train run={folder.root} ...` "
            "begins (Ctrl-C ends this command)"
        )
    paths = CheckpointFolder(folder.checkpoints).paths()
    newest = max((int(path.name) for path in paths), default=0)
    after = f"the next one after {newest:,} images" if newest else "the first one"
    return f"all checkpoints in {folder.root} are evaluated; waiting for {after}"


def results_of(folder: RunFolder, images_seen: int) -> Path:
    return folder.root / EVALUATED / f"{images_seen:012d}"


def next_checkpoint(folder: RunFolder) -> Path | None:
    """The oldest intact checkpoint without results."""
    for path in CheckpointFolder(folder.checkpoints).paths():
        if not is_evaluated(results_of(folder, int(path.name))) and find_fault(path) is None:
            return path
    return None


def is_evaluated(output: Path) -> bool:
    """Whether a checkpoint's results exist and are in the log; its weights are removed last."""
    return (output / RESULTS).is_file() and not (output / "export" / WEIGHTS).exists()


def is_finished(folder: RunFolder) -> bool:
    """Whether the training has reached `train.images`, or `train.patience_images` ended it."""
    paths = CheckpointFolder(folder.checkpoints).paths()
    if not paths or not folder.config.exists():
        return False
    asked = as_record(folder.recorded_options(), str(folder.config), REWRITTEN, ASKED)["train"]
    newest = max(int(path.name) for path in paths)
    if newest >= asked["images"] or not folder.is_exported:
        return newest >= asked["images"]
    facts = folder.exported_facts()
    is_newest = trained_images(facts) == newest
    return is_newest and has_ended(facts, asked["images"], asked.get("patience_images"))


def evaluate_checkpoint(
    session: Session, folder: RunFolder, checkpoint: Checkpoint, asked: dict[str, Any]
) -> None:
    """Export the checkpoint's weights, measure them like any run, write an event to the log."""
    output = results_of(folder, checkpoint.images_seen)
    stage = session.group.broadcast(exported_stage(checkpoint, output) if session.group.is_first else None)
    if stage is None:
        return  # the training has removed it in the meantime
    session.say(f"checkpoint at {checkpoint.images_seen:,} images")
    results = evaluation_of(stage)(session, output)
    with session.group.together(f"writing {folder.events}"):
        if session.group.is_first:
            if not is_logged(folder, checkpoint.images_seen):
                log = JsonlTracker(folder.events)
                log.record("evaluation", checkpoint.images_seen, **event_values(results))
                log.close()
            write_json(folder.root / EVALUATED / WATCHED, asked)
            (output / "export" / WEIGHTS).unlink()


def is_logged(folder: RunFolder, images_seen: int) -> bool:
    """Whether an earlier watcher has written this checkpoint's event."""
    events = read_events(folder.events) if folder.events.is_file() else []
    return any((event["event"], event["images_seen"]) == ("evaluation", images_seen) for event in events)


def exported_stage(checkpoint: Checkpoint, output: Path) -> str | None:
    """Export the weights; returns their stage, or None if the checkpoint was removed."""
    try:
        facts = checkpoint.progress["export"]
        save_weights(checkpoint.model, output / "export", {**facts, "images_seen": checkpoint.images_seen})
    except FileNotFoundError:
        return None
    return facts["stage"]


def evaluate_flow(session: Session, output: Path) -> dict[str, Any]:
    return evaluate_run(with_options(session, run=str(output), output=str(output)))


def evaluate_sampler(session: Session, output: Path) -> dict[str, Any]:
    if session.command.run is None:
        raise UserError(
            f"watch={session.command.watch} is a latent sampler; give the flow that it makes latents for: run=FLOW_RUN"
        )
    return evaluate_run(with_options(session, sampler=str(output), output=str(output)))


def evaluate_auxiliary(session: Session, output: Path) -> dict[str, Any]:
    return evaluate_prior(with_options(session, run=str(output), output=str(output)))


Evaluation = Callable[[Session, Path], dict[str, Any]]
EVALUATIONS: dict[Place, Evaluation] = {
    "flow": evaluate_flow,
    "latent_sampler": evaluate_sampler,
    "auxiliary": evaluate_auxiliary,
}


def evaluation_of(stage: str) -> Evaluation:
    """How checkpoints of a stage are evaluated; UserError for a stage whose model takes no part in generation."""
    place = place_of(stage)
    if place is None:
        known = ", ".join(name for name, kind in STAGES.items() if kind.place)
        raise UserError(
            f"checkpoints of stage={stage} cannot be evaluated: its model takes no part in generation; watch a run "
            f"of one of {known}"
        )
    return EVALUATIONS[place]


def with_options(session: Session, **changes: Any) -> Session:
    """The session with other options."""
    return dataclasses.replace(session, command=dataclasses.replace(session.command, **changes))


def event_values(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers that the log keeps: those of each row, or of the prior."""
    if "prior" in results:
        return {"prior": {key: value for key, value in results["prior"].items() if isinstance(value, float)}}
    return {
        f"{row['solver']}_{row['steps']}": {key: row[key] for key in (*logged_keys(), *COSTS) if key in row}
        for row in results["rows"]
    }
