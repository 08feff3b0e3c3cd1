"""The training loop.

    until all images are seen, or patience ends:
        next batch, forward and backward pass, step
        once in a while: log, validate, make pictures, save
        stop, with the state saved, if all ranks agree on it

Every rank runs it and takes the same branches: what only one rank knows (a signal, a failed write) reaches the others
as a vote.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch

from lediflow.data.streams.batch import Batch
from lediflow.engine.ema import decays_for
from lediflow.engine.hang_detection import Phase
from lediflow.engine.stop import StopReason
from lediflow.training.bad_steps import Step, copied_to_host, describe_bad_step
from lediflow.training.clock import learning_rate_factor
from lediflow.training.resume import restore_checkpoint
from lediflow.training.state import Training

log = logging.getLogger(__name__)


def take_step(run: Training) -> Step:
    """One optimizer step on the next global batch."""
    engine, config, clock = run.engine, run.config, run.clock
    keys: list[str] = []
    losses: list[torch.Tensor] = []
    for _ in range(engine.accumulation):
        batch = next_batch(run)
        loss = run.passes(batch)
        run.recorder.add(loss)
        keys += batch.keys
        losses.append(loss.per_sample)
    clock.advance()
    factor = learning_rate_factor(config.schedule, clock.images_seen, clock.images)
    norm = engine.step(factor, decays_for(config.ema, clock.images_seen, clock.global_batch))
    run.watchdog.step_done()
    run.stop.observe("step", run.recorder.end_step())
    return Step(clock.images_seen, keys, losses, *copied_to_host(norm), config.learning_rate * factor)


def train(run: Training) -> StopReason:
    """Train from where the run is (see resume.begin) to its end, which returns NONE, or until asked to stop."""
    config, clock, held_out, saving = run.config, run.clock, run.held_out, run.saving
    run.recorder.begin()
    while not run.is_over:
        step = take_step(run)

        # Once in a while: a step had no finite gradient and was left out; after too many, go back.
        report_bad_step(run, run.bad_steps.note(step))
        if run.bad_steps.are_too_many:
            restore_checkpoint(run)
            continue

        # Once in a while: log the means since the last time.
        if clock.is_due(config.log_every_images) or clock.is_finished:
            corrupt = len(run.stream.quarantine)
            run.recorder.record(corrupt, gradient_norm=step.norm, learning_rate=step.learning_rate)

        # Once in a while: validate, and make pictures.
        with run.recorder.paused():
            if held_out.is_due(clock):
                run.watchdog.beat(Phase.VALIDATING)
                run.stop.observe("validation", held_out.validate(run.stage, clock.images_seen))
            if run.pictures.are_due(clock, is_last=run.is_over):
                run.watchdog.beat(Phase.VALIDATING)
                seconds = run.pictures.make(run.stage, clock.images_seen, is_last=run.is_over)
                run.stop.observe("pictures", seconds)

        # Once in a while: save. Threads write while training goes on.
        agreed = agree(run)
        is_due = clock.is_due(config.checkpoint.every_images) and not agreed.is_save_pointless
        is_wanted = saving.is_time(is_due or agreed.retries_save or held_out.has_unreported_turn)
        if is_wanted and not run.is_over and run.bad_steps.in_a_row == 0:
            run.watchdog.beat(Phase.SAVING)
            saving.begin(clock.images_seen, run.progress)
            if held_out.has_unreported_turn:
                saving.settle()
                held_out.report_turn(clock.images_seen)

        # At a step on which all ranks agree: stop.
        if agreed.reason is StopReason.LEASE_LOST:
            return agreed.reason  # another process holds the run folder: a save would write into it
        if agreed.reason is not StopReason.NONE and not run.is_over:
            save_and_wait(run)
            return agreed.reason

    report_bad_step(run, run.bad_steps.flush())
    save_and_wait(run)
    held_out.report_turn(clock.images_seen)
    return StopReason.NONE


def next_batch(run: Training) -> Batch:
    """The next micro-batch; the time spent waiting for it is measured."""
    run.watchdog.beat(Phase.DATA)
    batch = run.recorder.waited(run.stream.next_batch)
    run.watchdog.beat(Phase.STEP)
    return batch


class Agreement(NamedTuple):
    """The largest of each vote over the ranks, one step old; the same on every rank."""

    reason: StopReason  # to stop
    retries_save: bool  # it is time to try a failed save again
    is_save_pointless: bool  # the wall time is so near that a save that begins now would delay the last one


def agree(run: Training) -> Agreement:
    """Exchange the ranks' votes at the end of a step, and learn how the save under way ended, if it did."""
    stop, saving = run.stop, run.saving
    votes = [stop.vote(), saving.wants_retry, saving.failed_save, stop.makes_saving_pointless]
    reason, retry, failed, pointless = run.engine.group.agree([int(vote) for vote in votes])
    saving.learn_outcome(failed)
    return Agreement(StopReason(reason), bool(retry), bool(pointless))


def report_bad_step(run: Training, bad: Step | None) -> None:
    """Log and record a step that was left out, with the samples whose loss was not finite."""
    if bad is None:
        return
    suspects = [key for keys in run.engine.group.all_gather(bad.suspects) for key in keys]
    log.warning("%s", describe_bad_step(bad, suspects))
    run.tracker.record("bad_step", bad.images_seen, norm=float(bad.norm), samples=suspects)


def save_and_wait(run: Training) -> None:
    """Save the present state and wait until it is saved, after any save under way."""
    run.watchdog.beat(Phase.FINISHING)
    run.saving.finish(run.clock.images_seen, run.progress)
