"""What a run is: the options and inputs that a continued run must share with its start."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lediflow.config.parent import Parent, has_parent
from lediflow.config.schema import TrainCommand
from lediflow.config.warm_start import WarmStart, warm_start_hash
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.training.exporting import LAST, has_ended, trained_images
from lediflow.training.identity import SCALE, WIDTH, differences, with_recorded_width

log = logging.getLogger(__name__)


def identity(command: TrainCommand) -> dict[str, Any]:
    """Of the options."""
    return {
        "stage": stage_options(command),
        "prior": command.prior,
        "seed": command.seed,
        "global_batch": command.train.global_batch,
        "model": model_options(command),
    }


def model_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the models; `augmentation` is left out where it is off, since older runs do not name it."""
    options = dataclasses.asdict(command.model)
    for name in ("auxiliary", "latent_sampler"):
        if not options[name]["augmentation"]:
            del options[name]["augmentation"]
    return without_defaults(options)


def stage_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the stage; without the prior's width where there is no learned prior."""
    options = dataclasses.asdict(command.stage)
    if command.prior == "gaussian":
        options.pop(WIDTH, None), options.pop(SCALE, None)
    return without_defaults(options)


# options that are younger than some runs, at the values that leave a training as it was without them
NEUTRAL_VALUES = {"dropout": 0, "beta_warmup_images": 0, "free_bits": 0, SCALE: 1}


def without_defaults(options: Any) -> Any:
    """The options without those at neutral values: a run from before these options is the same run."""
    if isinstance(options, list):
        return [without_defaults(entry) for entry in options]
    if not isinstance(options, dict):
        return options
    named = {name: value for name, value in options.items() if (name, value) not in NEUTRAL_VALUES.items()}
    return {name: without_defaults(value) for name, value in named.items()}


def full_identity(
    command: TrainCommand, parent: Parent | None, warm_start: WarmStart | None
) -> dict[str, Any]:
    """Of the options and of the weights that the run is built on, by their SHA-256."""
    return identity(command) | {
        "parent": parent.sha256 if parent else None,
        "warm_start": warm_start.sha256 if warm_start else None,
    }


def is_done(folder: RunFolder, command: TrainCommand) -> bool:
    """Whether the folder holds this training, finished; an error if it holds another one."""
    facts = exported_wholly(folder)
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
    if changed := changed + parent_changes(facts, command):
        raise UserError(
            f"{folder.root} is finished, but was trained with other options ({'; '.join(changed)}); "
            "choose another run="
        )
    log.info("%s is finished (%d images): nothing to do", folder.root, trained_images(facts))
    return True


def exported_wholly(folder: RunFolder) -> dict[str, Any] | None:
    """What stands beside the exported weights, or None where there are none, or not those that it describes."""
    if not folder.is_exported:
        return None
    try:
        facts: dict[str, Any] = folder.exported_facts()
        if facts["weights_sha256"] == folder.weights_hash():
            return facts
        fault = "its weights do not match their SHA-256"
    except (OSError, ValueError, LookupError, TypeError) as error:
        fault = f"it cannot be read ({error})"
    log.warning("%s is no whole export: %s; it is made again from the checkpoints", folder.export, fault)
    return None


def parent_changes(facts: dict[str, Any], command: TrainCommand) -> list[str]:
    """Whether the parent was trained anew since; one that is no longer there leaves a finished run alone."""
    folder, then = RunFolder(Path(command.parent or "(none)")), facts.get("parent")
    if not (then and has_parent(command) and folder.is_exported):
        return []
    return differences({"parent": then["sha256"]}, {"parent": folder.weights_hash()})
