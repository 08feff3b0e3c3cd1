"""`python -m lediflow.train`: train one stage, from wherever the run stands to its end."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that take seconds
    from lediflow.engine.early_signals import note_signals

    note_signals()

import dataclasses
import logging
import os
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lediflow.config.build import build_run, typed
from lediflow.config.checks import check_command
from lediflow.config.cli import run_command, this_command
from lediflow.config.dry_run import dry_run, without_data
from lediflow.config.identity import is_done
from lediflow.config.inputs import Inputs, open_inputs
from lediflow.config.prior_width import settle_width
from lediflow.config.schema import TrainCommand
from lediflow.config.sweep import separate_jobs
from lediflow.disk import whole_or_absent
from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.lease import Lease, NoLease, leased
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.engine.stop import StopReason, StopRequest, find_deadline
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.tracking.tracker import FencedTracker, build_tracker
from lediflow.training.exporting import export_weights
from lediflow.training.identity import differences
from lediflow.training.loop import train
from lediflow.training.resume import begin, find_newest
from lediflow.training.state import Training
from lediflow.training.turned import final_message

log = logging.getLogger(__name__)


def main() -> None:
    run_command("train", run, flags=["dry_run"])


def run(config: DictConfig) -> None:
    """One training command, from composed configuration to exported weights."""
    started = time.time()
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
    with StopRequest() as stop:  # from here on a signal is a request, answered at the first step's end
        inputs = open_inputs(command, ranks)
        folder.create()
        with leased(folder.lease, is_first=ranks.is_first) as lease:
            stop.holds = lease.holds
            if ranks.is_first:
                stop.file = folder.stop
                stop.deadline = find_deadline(command.stop, os.environ, started)
            text = OmegaConf.to_yaml(config, resolve=True)
            reason = trained(command, inputs, folder, ranks, stop, lease, text)
        if reason is StopReason.NONE:
            stop.consume()
        else:
            leave(reason, stop, folder, ranks)


def leave(reason: StopReason, stop: StopRequest, folder: RunFolder, ranks: Ranks) -> None:
    """End the process after a stop, saying how to go on."""
    is_ours = reason is not StopReason.LEASE_LOST
    saved = f"the state is saved in {folder.root}. To continue: {this_command()}"
    left = f"nothing was saved; {folder.lease} says who has it now"
    if ranks.is_first:
        print(f"stopped: {reason.sentence}; {saved if is_ours else left}", file=sys.stderr)
    if is_ours:
        stop.consume()
    stop.call_previous_handler(reason)
    sys.exit(reason.exit_status)


def answer_dry_run(config: DictConfig, ranks: Ranks) -> None:
    command: TrainCommand = typed(without_data(config))
    check_command(command)
    if ranks.is_first:
        print(dry_run(command, ranks.world_size))


def trained(
    command: TrainCommand,
    inputs: Inputs,
    folder: RunFolder,
    ranks: Ranks,
    stop: StopRequest,
    lease: Lease | NoLease,
    config: str,
) -> StopReason:
    """Build, resume, train, export; why it ended before its time, if it did."""
    views = build_tracker(
        command.tracking,
        folder.root,
        total_images=command.train.images,
        is_writer=ranks.is_first,
        title=f"{command.stage.name} ({command.prior} prior)",
        run_config=dataclasses.asdict(command),
    )
    tracker = FencedTracker(views, lease.holds)
    training = build_run(command, inputs, tracker, ranks, stop)
    training.saving.writer.fence = lease.fence
    try:
        lease.fence()  # of two that came at the same moment, one goes
        newest = find_newest(training)  # refuses a folder of another run, before anything in it is changed
        with training.watchdog:
            begin(training, newest)
            settle_width(training, newest, command, inputs, folder)
            if ranks.is_first:
                note_options(training, folder, config)
            reason = train(training)
            if reason is StopReason.NONE and not lease.confirm():
                reason = StopReason.LEASE_LOST
            if reason is StopReason.NONE and ranks.is_first:
                export(training, folder)
            # ranks leave together: launchers take the first one to go for a failure
            reason = StopReason(training.engine.group.agree_now([reason])[0])
    finally:
        training.saving.leave()
        tracker.close()
        training.stream.close()
    if reason is StopReason.NONE and ranks.is_first:
        log_ending(training)
    training.engine.close()
    return reason


def note_options(training: Training, folder: RunFolder, config: str) -> None:
    """Keep the options of this start, and what they change of the start before."""
    if folder.config.is_file():
        try:
            before = folder.recorded_options()
        except RecordError as error:
            log.warning("%s", error)
        else:
            now = OmegaConf.to_container(OmegaConf.create(config))
            if changed := differences({"options": before}, {"options": now}):
                training.tracker.record("options", training.clock.images_seen, changed=changed)
    with whole_or_absent(folder.config) as stream:
        stream.write(config.encode())


def export(training: Training, folder: RunFolder) -> None:
    """Write averaged weights of the last checkpoint where sampling and later stages look for them."""
    last = training.checkpoints.path_at(training.clock.images_seen)  # later ones there may be broken
    # as asked now: a shorter patience may end a run at the checkpoint that it goes on from
    facts = export_weights(Checkpoint(last), folder.export, training.config.export, ended=training.ended)
    log.info("exported %s: averaged weights at %d images", folder.export, facts["images_seen"])


def log_ending(training: Training) -> None:
    """Log as the last line that the held-out loss ended above its lowest, or that patience ended the run."""
    held_out = training.held_out
    if text := final_message(held_out.history.last, training.config, held_out.is_out_of_patience):
        log.warning("%s", text)


if __name__ == "__main__":
    main()
