"""`python -m lediflow.train`: train one stage, from wherever the run stands to its end."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lediflow.config.build import (
    BuiltRun,
    Parent,
    build_run,
    build_trained_model,
    check_command,
    load_parent,
    typed,
)
from lediflow.config.cli import STOPPED, run_command
from lediflow.config.schema import TrainCommand
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.models import save_model
from lediflow.tracking.build import build_tracker
from lediflow.training.loop import Outcome, train
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def main(overrides: Iterable[str] = ()) -> None:
    run_command("train", run, overrides)


def run(config: DictConfig) -> None:
    """One training command, from composed configuration to exported weights."""
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
    if ranks.is_first:
        folder.config.write_text(OmegaConf.to_yaml(config, resolve=True))
    outcome = trained(command, parent, folder, ranks)
    if outcome is Outcome.STOPPED:
        if ranks.is_first:
            print(
                f"stopped; the state is saved in {folder.root}. To continue: {this_command()}",
                file=sys.stderr,
            )
        sys.exit(STOPPED)


def is_done(folder: RunFolder, command: TrainCommand) -> bool:
    """Whether the folder holds this training, finished."""
    seen = folder.exported_facts()["images_seen"] if folder.is_exported else 0
    if seen < command.train.images:
        return False
    log.info("%s is finished (%d images): nothing to do", folder.root, seen)
    return True


def trained(command: TrainCommand, parent: Parent | None, folder: RunFolder, ranks: Ranks) -> Outcome:
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
    return " ".join(["python", "-m", module, *sys.argv[1:]])


if __name__ == "__main__":
    main()
