"""`python -m lediflow.train`: train one stage, from wherever the run stands to its end."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lediflow.config.build import BuiltRun, build_run, typed
from lediflow.config.checks import check_command
from lediflow.config.cli import STOPPED, run_command, this_command
from lediflow.config.identity import is_done
from lediflow.config.inputs import Inputs, open_inputs
from lediflow.config.schema import TrainCommand
from lediflow.config.sweep import separate_jobs
from lediflow.config.trained_model import build_trained_model
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.models import save_model
from lediflow.tracking.build import build_tracker
from lediflow.training.loop import Outcome, resume, train
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def main(overrides: Iterable[str] = ()) -> None:
    run_command("train", run, overrides, flags=["dry_run"])


def run(config: DictConfig) -> None:
    """One training command, from composed configuration to exported weights."""
    separate_jobs(config)
    ranks = find_ranks()
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    if config.dry_run:
        answer_dry_run(config, ranks)
        return
    command: TrainCommand = typed(config)
    folder = RunFolder(Path(command.run))
    if is_done(folder, command):
        return
    check_command(command)
    inputs = open_inputs(command, ranks)
    folder.create()
    outcome = trained(command, inputs, folder, ranks, OmegaConf.to_yaml(config, resolve=True))
    if outcome is Outcome.STOPPED:
        if ranks.is_first:
            print(
                f"stopped; the state is saved in {folder.root}. To continue: {this_command()}",
                file=sys.stderr,
            )
        sys.exit(STOPPED)


def answer_dry_run(config: DictConfig, ranks: Ranks) -> None:
    from lediflow.config.dry_run import dry_run, without_data

    command: TrainCommand = typed(without_data(config))
    check_command(command)
    if ranks.is_first:
        print(dry_run(command, ranks.world_size))


def trained(command: TrainCommand, inputs: Inputs, folder: RunFolder, ranks: Ranks, config: str) -> Outcome:
    tracker = build_tracker(
        command.tracking,
        folder.root,
        total_images=command.train.images,
        is_writer=ranks.is_first,
        title=f"{command.stage.name} ({command.prior} prior)",
        run_config=dataclasses.asdict(command),
    )
    built = build_run(command, inputs, tracker, ranks)
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


if __name__ == "__main__":
    main()
