"""`python -m lediflow.train`: train one stage, from wherever the run stands to its end."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lediflow.config.build import BuiltRun, build_run, build_trained_model, identity, typed
from lediflow.config.checks import check_command
from lediflow.config.cli import STOPPED, run_command
from lediflow.config.parent import Parent, load_parent
from lediflow.config.schema import TrainCommand
from lediflow.config.sweep import separate_jobs
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.errors import UserError
from lediflow.models import save_model
from lediflow.tracking.build import build_tracker
from lediflow.training.identity import differences
from lediflow.training.loop import Outcome, resume, train
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def main(overrides: Iterable[str] = ()) -> None:
    run_command("train", run, overrides)


def run(config: DictConfig) -> None:
    """One training command, from composed configuration to exported weights."""
    separate_jobs(config)
    command: TrainCommand = typed(config)
    ranks = find_ranks()
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    folder = RunFolder(Path(command.run))
    if is_done(folder, command):
        return
    check_command(command)
    parent = load_parent(command)
    folder.create()
    outcome = trained(command, parent, folder, ranks, OmegaConf.to_yaml(config, resolve=True))
    if outcome is Outcome.STOPPED:
        if ranks.is_first:
            print(
                f"stopped; the state is saved in {folder.root}. To continue: {this_command()}",
                file=sys.stderr,
            )
        sys.exit(STOPPED)


def is_done(folder: RunFolder, command: TrainCommand) -> bool:
    """Whether the folder holds this training, finished; an error if it holds another one."""
    facts: dict[str, Any] = folder.exported_facts() if folder.is_exported else {"images_seen": 0}
    if facts["images_seen"] < command.train.images:
        return False
    known = facts.get("identity", {})
    if changed := differences(known, {key: identity(command)[key] for key in known}):
        raise UserError(
            f"{folder.root} is finished, but was trained with other options ({'; '.join(changed)}); "
            "choose another run="
        )
    log.info("%s is finished (%d images): nothing to do", folder.root, facts["images_seen"])
    return True


def trained(
    command: TrainCommand, parent: Parent | None, folder: RunFolder, ranks: Ranks, config: str
) -> Outcome:
    tracker = build_tracker(
        command.tracking,
        folder.root,
        total_images=command.train.images,
        is_writer=ranks.is_first,
        title=f"{command.stage.name} ({command.prior} prior)",
        run_config=dataclasses.asdict(command),
    )
    built = build_run(command, parent, tracker, ranks)
    try:
        resume(built.training)  # refuses a folder of another run, before anything in it is changed
        if ranks.is_first:
            folder.config.write_text(config)
        outcome = train(built.training)
        if outcome is Outcome.FINISHED:
            export(command, built, folder)
    finally:
        tracker.close()
        built.training.stream.close()
    built.training.engine.close()
    return outcome


def export(command: TrainCommand, built: BuiltRun, folder: RunFolder) -> None:
    """Write the averaged weights where sampling and later stages look for them."""
    weights = built.training.engine.export()
    if not built.training.engine.ranks.is_first:
        return
    model = build_trained_model(command)
    model.load_state_dict(weights)
    save_model(model, folder.export, {**built.facts, "images_seen": built.training.clock.images_seen})
    log.info("exported %s", folder.export)


def this_command() -> str:
    """The command line that was typed, ready to be typed again."""
    package = sys.modules["__main__"].__spec__
    module = package.name if package else "lediflow.train"
    is_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    launcher = f"torchrun --nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}" if is_torchrun else "python"
    return f"{launcher} {shlex.join(['-m', module, *sys.argv[1:]])}"


if __name__ == "__main__":
    main()
