"""The training loop, as the algorithm box would have it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import SampleStream
from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder
from lediflow.engine.checkpoints.averages import HISTORY
from lediflow.engine.ema import BEST, decays_for, refuse_new_widths
from lediflow.engine.hang_detection import Phase
from lediflow.engine.protocol import Engine
from lediflow.engine.stop import StopReason, StopRequest
from lediflow.engine.watchdog import Watchdog
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.nn.neighborhood import checked_routes
from lediflow.stages.protocol import Stage
from lediflow.tracking.event_log import TURNED
from lediflow.tracking.tracker import Tracker
from lediflow.training.bad_steps import BadSteps, Step, described, on_its_way
from lediflow.training.clock import Clock
from lediflow.training.config import TrainingConfig
from lediflow.training.exporting import IMAGES, PATIENCE
from lediflow.training.held_out import HeldOut
from lediflow.training.identity import differences, with_recorded_width
from lediflow.training.pace import Pace
from lediflow.training.saving import Saving
from lediflow.training.schedules import learning_rate_factor
from lediflow.training.turned import warning
from lediflow.training.validation import Validation
from lediflow.training.window import Window

log = logging.getLogger(__name__)


@dataclass
class Training:
    """Everything one run needs, built; `begin(self, find_newest(self))`, then `train(self)` run it."""

    engine: Engine
    stage: Stage
    stream: SampleStream
    noise: SampleNoise
    clock: Clock
    tracker: Tracker
    checkpoints: CheckpointFolder
    saving: Saving
    window: Window
    pace: Pace
    validation: Validation | None
    stop: StopRequest
    watchdog: Watchdog
    config: TrainingConfig
    identity: dict[str, Any]  # what a resumed run must share: seed, stage, parent
    history: str  # names what stands since the run's first step; kept when the run is continued
    export: dict[str, Any] = field(default_factory=dict)  # what exported weights are described by
    held_out: HeldOut = field(default_factory=HeldOut)
    compared_from: int = 0  # images seen; earlier held-out losses are not compared
    is_logged: Callable[[str], bool] = lambda event: False  # whether the run's log has an event of this name
    bad_steps: BadSteps = field(init=False)
    has_unreported_turn: bool = field(
        init=False, default=False
    )  # the held-out loss has turned: save, then report

    def __post_init__(self) -> None:
        self.bad_steps = BadSteps(self.config.bad_steps)

    @property
    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the engine's state."""
        return {
            "images_seen": self.clock.images_seen,
            "stream": self.stream.state(),
            "identity": self.identity,
            HISTORY: self.history,
            "ranks": self.engine.ranks.world_size,
            "export": self.export,
            "exports": self.config.export,
            "held_out": self.held_out.state() if self.held_out.best else None,
            "ended": self.ended,
        }

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `train.patience_images` have passed since the best validation; false before the first validation."""
        patience = self.config.patience_images
        return bool(patience) and self.held_out.images_since_best >= (patience or 0)

    @property
    def is_over(self) -> bool:
        return self.clock.is_finished or self.is_out_of_patience

    @property
    def ended(self) -> str | None:
        """Why the run is over; None while it is not."""
        if self.clock.is_finished:
            return IMAGES
        return PATIENCE if self.is_out_of_patience else None


def train(run: Training) -> StopReason:
    """Train from where the run stands (see `begin`) to its end (NONE), or until asked to stop."""
    run.pace.timings.restart()
    while not run.is_over:
        step = take_step(run)
        report_bad_step(run, run.bad_steps.note(step))
        if run.bad_steps.are_too_many:
            restore_checkpoint(run)
            continue
        log_and_validate(run, step)
        reason = agree_and_save(run)
        if reason is StopReason.LEASE_LOST:
            return reason  # what is saved now would be written into another's folder
        if reason is not StopReason.NONE and not run.is_over:
            save_and_wait(run)
            return reason
    report_bad_step(run, run.bad_steps.flush())
    save_and_wait(run)
    report_turn(run)
    return StopReason.NONE


def take_step(run: Training) -> Step:
    """One optimizer step, on the next global batch."""
    engine, config, clock = run.engine, run.config, run.clock
    keys: list[str] = []
    losses: list[torch.Tensor] = []
    for _ in range(engine.accumulation):
        run.watchdog.beat(Phase.DATA)
        with run.pace.timings.of("data"):
            batch = run.window.waited(run.stream.next_batch)
        run.watchdog.beat(Phase.STEP)
        loss = run.stage.loss(engine.module, batch, run.noise)
        engine.backward(loss.loss)
        run.window.add(loss)
        keys += batch.keys
        losses.append(loss.per_sample)
    clock.advance()
    factor = learning_rate_factor(config.schedule, clock.images_seen, clock.images)
    norm = engine.step(factor, decays_for(config.ema, clock.images_seen, clock.global_batch))
    run.watchdog.step_done()
    run.stop.observe("step", run.pace.end_step())
    return Step(clock.images_seen, keys, losses, *on_its_way(norm), batch, config.learning_rate * factor)


def agree_and_save(run: Training) -> StopReason:
    """At the step's end all ranks hear each other's wishes, and save if it is time."""
    saving, clock = run.saving, run.clock
    votes = [run.stop.vote(), saving.wants_retry, saving.failed_save, run.stop.makes_saving_pointless]
    reason, retry, failed, pointless = run.engine.group.agree([int(vote) for vote in votes])
    saving.learn_outcome(failed)
    due = clock.is_due(run.config.checkpoint.every_images) and not pointless
    wanted = due or bool(retry) or run.has_unreported_turn
    if saving.is_time(wanted) and not run.is_over and run.bad_steps.in_a_row == 0:
        run.watchdog.beat(Phase.SAVING)
        saving.begin(clock.images_seen, run.progress)
        if run.has_unreported_turn:
            saving.settle()
            report_turn(run)
    return StopReason(reason)


def log_and_validate(run: Training, step: Step) -> None:
    """What happens now and then between steps: a point of the curves, a check of attention, the held-out samples."""
    clock, config = run.clock, run.config
    if clock.is_due(config.log_every_images) or clock.is_finished:
        run.window.record(
            len(run.stream.quarantine), gradient_norm=step.norm, learning_rate=step.learning_rate
        )
        run.pace.record(clock.images_seen)
    with run.window.paused():
        if clock.is_due(config.check_attention_every_steps * config.global_batch):
            check_attention(run, step.batch)
        if run.validation and (clock.is_due(run.validation.every_images) or clock.is_finished):
            validate(run, run.validation)
    run.pace.timings.restart_step()


def check_attention(run: Training, batch: Batch) -> None:
    """Look at the routes of neighborhood attention on a batch; one that fails is reported and replaced."""
    with checked_routes():
        run.stage.loss(run.engine.module, batch, run.noise)


def validate(run: Training, validation: Validation) -> None:
    """Measure the held-out loss under this step's weights and under the averaged ones; the latter are compared."""
    started = time.perf_counter()
    run.watchdog.beat(Phase.VALIDATING)
    found = validation.measure(run.engine, run.stage)
    with run.engine.averaged():
        losses = validation.losses(run.engine, run.stage)
    if run.held_out.last and run.held_out.last.images_seen < run.compared_from:
        run.held_out = run.held_out.restarted()
    point = run.held_out.note(run.clock.images_seen, losses)
    if point.is_best:
        run.engine.keep_best()
    seconds = time.perf_counter() - started
    run.tracker.record("validation", run.clock.images_seen, **found | point.values | {"seconds": seconds})
    run.stop.observe("validation", seconds)
    run.has_unreported_turn |= point.has_turned


def report_turn(run: Training) -> None:
    """Report once in a run, after a save, that the held-out loss has turned: a continued run does not repeat it."""
    turn, run.has_unreported_turn = run.held_out.turn, False
    if turn is None or not run.engine.ranks.is_first or run.is_logged(TURNED):
        return
    text = warning(turn, run.config)
    log.warning("%s", text)
    run.tracker.record(TURNED, run.clock.images_seen, **turn.values, message=text)


def report_bad_step(run: Training, bad: Step | None) -> None:
    """Name the samples of a step that was left out."""
    if bad is None:
        return
    suspects = [key for keys in run.engine.group.all_gather(bad.suspects) for key in keys]
    log.warning("%s", described(bad, suspects))
    run.tracker.record("bad_step", bad.images_seen, norm=float(bad.norm), samples=suspects)


def restore_checkpoint(run: Training) -> None:
    """Continue from the last good checkpoint: what was transient does not come again."""
    run.bad_steps.count_return(run.checkpoints.folder)
    run.saving.settle()
    run.window.restart()
    run.pace.timings.restart()
    if (newest := find_newest(run)) is None:
        raise UserError(
            f"{run.bad_steps.config.in_a_row} steps in a row had no finite gradient, before anything was saved; lower "
            "train.learning_rate, raise train.schedule.warmup_images, or look at the samples that the log names"
        )
    continue_from(run, newest, why="too many steps in a row without a finite gradient")


def save_and_wait(run: Training) -> None:
    """Save where the run stands and see that it is saved, whatever else is under way."""
    run.watchdog.beat(Phase.FINISHING)
    run.saving.finish(run.clock.images_seen, run.progress)


def find_newest(run: Training) -> Checkpoint | None:
    """The newest valid checkpoint; the first rank looks for it. Refuses one of another run, and changes nothing."""
    newest = run.checkpoints.newest() if run.engine.ranks.is_first else None
    path = run.engine.group.broadcast(newest.path if newest else None)
    if path is None:
        return None
    checkpoint = Checkpoint(path)
    found = checkpoint.progress["identity"]
    asked = with_recorded_width(found, run.identity)
    if changed := differences(found, asked):
        raise UserError(
            f"{run.checkpoints.folder} was trained with other options ({'; '.join(changed)}); "
            "repeat the options of the first start, or choose another run="
        )
    refuse_new_widths(run.config.ema, checkpoint.state.shapes)
    if asked != run.identity:
        run.identity = run.export["identity"] = asked
    return checkpoint


def begin(run: Training, newest: Checkpoint | None) -> None:
    """Where `find_newest` found the run, or at its start."""
    if newest is None:
        run.tracker.record("start", 0, ranks=run.engine.ranks.world_size)
    else:
        continue_from(run, newest, why="start")


def restored_held_out(run: Training, checkpoint: Checkpoint) -> HeldOut:
    """The history at a checkpoint; restarted where the samples differ or the best weights were not kept."""
    found = checkpoint.progress.get("held_out")
    known = HeldOut.from_state(found) if found else HeldOut(run.held_out.samples)
    fault = ""
    if run.validation is not None and known.samples != run.held_out.samples:
        fault = "the held-out samples have changed"
    elif run.config.export == BEST and not any(key.startswith(f"{BEST}/") for key in checkpoint.state.shapes):
        fault = "the checkpoint has no best weights, since the run was not trained with train.export=best"
    if not fault:
        return known
    log.warning(
        "the search for the best validation starts again at %d images: %s", checkpoint.images_seen, fault
    )
    return replace(known.restarted(), samples=run.held_out.samples)


def continue_from(run: Training, checkpoint: Checkpoint, why: str) -> None:
    """Load a checkpoint into engine, stream and clock, on all ranks."""
    started = time.perf_counter()
    run.history = checkpoint.progress.get(HISTORY, "")
    run.engine.load(checkpoint.state)
    run.stream.load(checkpoint.progress["stream"])
    run.held_out = restored_held_out(run, checkpoint)
    run.clock.images_seen = run.saving.last_saved = checkpoint.images_seen
    run.tracker.record(
        "resume",
        run.clock.images_seen,
        ranks=run.engine.ranks.world_size,
        why=why,
        seconds=time.perf_counter() - started,
    )
    log.info("continuing at %d of %d images", run.clock.images_seen, run.clock.images)
    report_turn(run)  # in case it was saved but not reported
