"""A finished run: whether a run folder holds the training that a command asks for, and how the two differ if not."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lediflow.config.building.inputs import identity
from lediflow.config.building.models import has_parent, warm_start_hash
from lediflow.config.building.teacher import pinned_hashes
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.foreign import has_index
from lediflow.data.shards.index import ShardIndex
from lediflow.data.storage import is_remote
from lediflow.engine.checkpoints import CheckpointFolder
from lediflow.errors import UserError
from lediflow.records import RecordError, leaves
from lediflow.run_folder import RunFolder, has_ended, trained_images
from lediflow.text import shown_hash
from lediflow.training.exporting import BEST, LAST, export_command, holds_best
from lediflow.training.resume import differences, with_recorded_width

log = logging.getLogger(__name__)

# options that a run may be continued with, and that its weights depend on
CHANGEABLE = (
    "train.images", "train.learning_rate", "train.weight_decay", "train.beta", "train.schedule.", "train.ema.",
    "engine.gradient_clip", "data.flip_", "data.augment.",
)  # fmt: skip


def is_done(folder: RunFolder, command: TrainCommand) -> bool:
    """Whether the folder holds this training, finished; UserError if it holds a finished one with other options."""
    facts = verified_export(folder)
    if facts is None or not has_ended(facts, command.train.images, command.train.patience_images):
        return False
    then = {"warm_start": None, **facts.get("identity", {})}
    now = identity(command) | {"warm_start": warm_start_hash(command)}
    if command.teacher is not None:
        now |= pinned_hashes(command)
    now = with_recorded_width(then, now)
    shared = then.keys() & now.keys()
    changed = differences({key: then[key] for key in shared}, {key: now[key] for key in shared})
    changed += differences(
        {"train.export": facts.get("export", LAST)}, {"train.export": command.train.export}
    )
    if others := changed + parent_changes(facts, command) + data_changes(facts, command):
        advice = "choose another run="
        if len(others) == 1 and others[0].startswith("train.export"):
            advice = advice_for_export(folder, command.train.export)
        raise UserError(
            f"run={folder.root} is finished, but was trained with other options ({'; '.join(others)}); {advice}"
        )
    log.info("%s is finished (%d images): nothing to do", folder.root, trained_images(facts))
    if unused := unused_changes(folder, command):
        log.warning("its weights are of other options (%s); choose another run= to train with these", unused)
    return True


def unused_changes(folder: RunFolder, command: TrainCommand) -> str:
    """The options that differ from those that a finished run was last trained with, as a phrase; "" if none does."""
    try:
        then = dict(leaves(folder.recorded_options(), in_lists=True))
    except RecordError:
        return ""
    now = dict(leaves(dataclasses.asdict(command), in_lists=True))
    names = [name for name in then.keys() & now.keys() if name.startswith(CHANGEABLE)]
    return "; ".join(differences({name: then[name] for name in names}, {name: now[name] for name in names}))


def advice_for_export(folder: RunFolder, which: str) -> str:
    """What to do where a finished run exported the other of the last and the best weights."""
    newest = CheckpointFolder(folder.checkpoints).newest()
    if newest is not None and (which == LAST or (which == BEST and holds_best(newest))):
        return f"its newest checkpoint holds these weights: {export_command(folder.root, which)}"
    return (
        "its checkpoints hold no weights of a best validation, which are kept from the start of a run; train again "
        f"with another run=, such as run={folder.root}-best"
    )


def verified_export(folder: RunFolder) -> dict[str, Any] | None:
    """export/config.json if the weights next to it match its SHA-256; None if there is no complete export."""
    if not folder.is_exported:
        return None
    try:
        facts: dict[str, Any] = folder.exported_facts()
        if facts["weights_sha256"] == folder.weights_hash():
            return facts
        fault = "its weights do not match their recorded SHA-256"
    except (OSError, ValueError, LookupError, TypeError) as error:
        fault = f"it cannot be read ({error})"
    log.warning(
        "%s is not a complete export: %s; it is written again from the checkpoints", folder.export, fault
    )
    return None


def parent_changes(facts: dict[str, Any], command: TrainCommand) -> list[str]:
    """The difference between the recorded and the present parent weights; none if the parent no longer exists."""
    folder, then = RunFolder(Path(command.parent or "(none)")), facts.get("parent")
    if not (then and has_parent(command) and folder.is_exported):
        return []
    return differences({"parent": then["sha256"]}, {"parent": folder.weights_hash()})


def data_changes(facts: dict[str, Any], command: TrainCommand) -> list[str]:
    """The differences between the recorded data and those of the command, as far as these can be read now."""
    recorded, path = facts.get("data", {}), command.data.path
    then, share = (
        recorded.get("fingerprint"),
        recorded.get("held_out_fraction", command.data.held_out_fraction),
    )
    if share != command.data.held_out_fraction:
        return differences(
            {"data.held_out_fraction": share}, {"data.held_out_fraction": command.data.held_out_fraction}
        )
    if then is None or is_remote(path) or not has_index(path):
        return []
    try:
        now = ShardIndex.load(path).fingerprint
    except UserError:
        return []
    return (
        differences({"data": shown_hash(then)}, {"data": f"{shown_hash(now)} in {path}"})
        if now != then
        else []
    )
