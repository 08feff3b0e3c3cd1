"""Identity of a run: the options and inputs that must stay the same when the run is continued."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lediflow.config.building.parent import Parent, has_parent
from lediflow.config.building.warm_start import WarmStart, warm_start_hash
from lediflow.config.composition.schema import TrainCommand
from lediflow.engine.checkpoints import CheckpointFolder
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.training.exporting import BEST, LAST, export_command, has_ended, holds_best, trained_images
from lediflow.training.prior_width import SCALE, WIDTH
from lediflow.training.resume import differences, with_recorded_width

log = logging.getLogger(__name__)


def identity(command: TrainCommand) -> dict[str, Any]:
    """The part of the identity that the options define."""
    return {
        "stage": stage_options(command),
        "prior": command.prior,
        "seed": command.seed,
        "global_batch": command.train.global_batch,
        "model": model_options(command),
    }


def model_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the models; `augmentation` is left out if it is off, because older runs do not record it."""
    options = dataclasses.asdict(command.model)
    for name in ("auxiliary", "latent_sampler"):
        if not options[name]["augmentation"]:
            del options[name]["augmentation"]
    return without_defaults(options)


def stage_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the stage; without the width of the prior if the prior is Gaussian."""
    options = dataclasses.asdict(command.stage)
    if command.prior == "gaussian":
        options.pop(WIDTH, None), options.pop(SCALE, None)
    return without_defaults(options)


# options added in later releases, with the values that leave training unchanged
NEUTRAL_VALUES = {"dropout": 0, "beta_warmup_images": 0, "free_bits": 0, SCALE: 1}


def without_defaults(options: Any) -> Any:
    """The options except those at neutral values, so that runs older than these options keep their identity."""
    if isinstance(options, list):
        return [without_defaults(entry) for entry in options]
    if not isinstance(options, dict):
        return options
    named = {name: value for name, value in options.items() if (name, value) not in NEUTRAL_VALUES.items()}
    return {name: without_defaults(value) for name, value in named.items()}


def full_identity(
    command: TrainCommand, parent: Parent | None, warm_start: WarmStart | None
) -> dict[str, Any]:
    """The whole identity: options, and SHA-256 of the parent's and of the initial weights."""
    return identity(command) | {
        "parent": parent.sha256 if parent else None,
        "warm_start": warm_start.sha256 if warm_start else None,
    }


def is_done(folder: RunFolder, command: TrainCommand) -> bool:
    """Whether the folder holds this training, finished; UserError if it holds a finished one with other options."""
    facts = verified_export(folder)
    if facts is None or not has_ended(facts, command.train.images, command.train.patience_images):
        return False
    then = {"warm_start": None, **facts.get("identity", {})}
    now = identity(command) | {"warm_start": warm_start_hash(command)}
    now = with_recorded_width(then, now)
    shared = then.keys() & now.keys()
    changed = differences({key: then[key] for key in shared}, {key: now[key] for key in shared})
    changed += differences(
        {"train.export": facts.get("export", LAST)}, {"train.export": command.train.export}
    )
    if others := changed + parent_changes(facts, command):
        advice = "choose another run="
        if len(others) == 1 and others[0].startswith("train.export"):
            advice = advice_for_export(folder, command.train.export)
        raise UserError(
            f"{folder.root} is finished, but was trained with other options ({'; '.join(others)}); {advice}"
        )
    log.info("%s is finished (%d images): nothing to do", folder.root, trained_images(facts))
    return True


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
    """export/config.json if the weights beside it match its SHA-256; None if there is no complete export."""
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
