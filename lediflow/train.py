"""`python -m lediflow.train`: start or continue the training of one stage, and export its weights."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from lediflow.engine.early_signals import note_signals

    note_signals()

import logging
import os
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lediflow.config.building.finished import is_done
from lediflow.config.building.inputs import Inputs, open_inputs
from lediflow.config.building.prior_width import settle_width
from lediflow.config.building.run import build_run
from lediflow.config.composition.checks import check_command, typed
from lediflow.config.composition.command_line import run_command, this_command
from lediflow.config.composition.schema import TrainCommand
from lediflow.config.composition.summary import summary
from lediflow.config.dry_run import dry_run, without_data
from lediflow.config.submission import register_launchers
from lediflow.disk import whole_or_absent
from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.lease import Lease, NoLease, leased
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.engine.stop import StopReason, StopRequest, find_deadline
from lediflow.errors import UserError
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.training.exporting import export_weights
from lediflow.training.held_out_monitor import final_message
from lediflow.training.loop import train
from lediflow.training.resume import begin, differences, find_newest
from lediflow.training.state import Training

log = logging.getLogger("lediflow.train")  # not __main__


def main() -> None:
    run_command("train", run, register_launchers, flags=["dry_run"])


def run(config: DictConfig) -> None:
    """Run one training command: check the options, open the inputs, build, resume, train, export."""
    started, ranks = time.time(), find_ranks()
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    if config.dry_run:
        print_dry_run(config, ranks)
        return
    command: TrainCommand = typed(config)
    folder = RunFolder(Path(command.run))
    if folder.is_exported and is_done(folder, command):
        return
    check_command(command)
    with StopRequest() as stop:  # from here on a signal is a request to stop, handled at the end of a step
        inputs = open_inputs(command, ranks)
        folder.create()
        with leased(folder.lease, is_first=ranks.is_first) as lease:
            stop.holds = lease.holds
            if ranks.is_first:
                stop.file = folder.stop
                stop.deadline = find_deadline(command.stop, os.environ, started)
            options = OmegaConf.to_yaml(config, resolve=True)
            training = build_run(command, inputs, ranks, stop, lease)
            reason = train_and_export(training, command, inputs, lease, options)
        if reason is not StopReason.NONE:
            leave(reason, stop, folder, ranks)
        stop.consume()
    if ranks.is_first:
        print_summary(command, time.time() - started)


def print_dry_run(config: DictConfig, ranks: Ranks) -> None:
    """Print the report of a dry run on rank 0."""
    command: TrainCommand = typed(without_data(config))
    check_command(command)
    if ranks.is_first:
        print(dry_run(command, ranks.world_size))


def train_and_export(
    training: Training, command: TrainCommand, inputs: Inputs, lease: Lease | NoLease, options: str
) -> StopReason:
    """Begin or resume the run, train, and export; the reason if it stopped early, else StopReason.NONE."""
    folder, is_first = RunFolder(Path(command.run)), training.engine.ranks.is_first
    try:
        lease.fence()  # if two processes started at the same moment, only one continues
        newest = find_newest(training)  # raises for a folder of another run, before changing anything in it
        with training.watchdog:
            begin(training, newest)
            settle_width(training, newest, command, inputs, folder)
            if is_first:
                note_options(training, folder, options)
            reason = train(training)
            if reason is StopReason.NONE and not lease.confirm():
                reason = StopReason.LEASE_LOST
            if reason is StopReason.NONE and is_first:
                export(training, folder)
            # ranks exit together, because launchers treat the first exit as a failure
            reason = StopReason(training.engine.group.agree_now([reason])[0])
    finally:
        training.saving.leave()
        training.tracker.close()
        training.stream.close()
    if reason is StopReason.NONE and is_first:
        log_ending(training)
    training.engine.close()
    return reason


def note_options(training: Training, folder: RunFolder, options: str) -> None:
    """Write the options of this start to config.yaml, and record changes since the previous start as an event."""
    if folder.config.is_file():
        try:
            before = folder.recorded_options()
        except RecordError as error:
            log.warning("%s", error)
        else:
            now = OmegaConf.to_container(OmegaConf.create(options))
            if changed := differences({"options": before}, {"options": now}):
                training.tracker.record("options", training.clock.images_seen, changed=changed)
    with whole_or_absent(folder.config) as stream:
        stream.write(options.encode())


def export(training: Training, folder: RunFolder) -> None:
    """Export averaged weights of the last checkpoint to RUN/export, where sampling and later stages load them."""
    last = training.checkpoints.path_at(training.clock.images_seen)  # later checkpoints there may be damaged
    # with the present options: a shorter patience can end a run at the checkpoint that it continues from
    facts = export_weights(Checkpoint(last), folder.export, training.config.export, ended=training.ended)
    log.info("exported %s: averaged weights at %d images", folder.export, facts["images_seen"])


def log_ending(training: Training) -> None:
    """Log a last warning if the held-out loss ended above its minimum, or if patience ended the run."""
    held_out = training.held_out
    if text := final_message(held_out.history.last, training.config, held_out.is_out_of_patience):
        log.warning("%s", text)


def print_summary(command: TrainCommand, seconds: float) -> None:
    """Print what came out and what comes next. Training has succeeded, whatever happens here."""
    try:
        print(summary(command, seconds))
    except (OSError, UserError) as error:
        log.warning("there is no summary: %s", error)


def leave(reason: StopReason, stop: StopRequest, folder: RunFolder, ranks: Ranks) -> None:
    """End the process after a stop, with a message that says how to continue."""
    is_ours = reason is not StopReason.LEASE_LOST
    saved = f"the state is saved in {folder.root}. To continue: {this_command()}"
    left = f"nothing was saved; {folder.lease} names its present owner"
    if ranks.is_first:
        print(f"stopped: {reason.sentence}; {saved if is_ours else left}", file=sys.stderr)
    if is_ours:
        stop.consume()
    stop.call_previous_handler(reason)
    sys.exit(reason.exit_status)


if __name__ == "__main__":
    main()
