"""What is refused before anything is built: options that contradict each other, levels that cannot tile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lediflow.config.schema import TrainCommand
from lediflow.errors import UserError
from lediflow.models.specs import latent_shape
from lediflow.nn.specs import check_grid

PRIORS = ("learned", "gaussian")
RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("train.images", "train.global_batch", "train.bad_steps.in_a_row",
         "watchdog.every_seconds", "watchdog.silent_seconds", "engine.join_seconds", "engine.peak_tflops",
         "stop.wall_minutes"),
        lambda value: value > 0,
        "above 0",
    ),
    (
        ("seed", "synthetic_images", "dry_run_ranks", "nodes", "train.learning_rate",
         "train.weight_decay", "train.schedule.warmup_images",
         "train.schedule.decay_images", "train.schedule.final_factor", "train.ema.half_life_images",
         "train.checkpoint.every_images", "train.checkpoint.keep_last", "train.checkpoint.keep_every_images",
         "train.checkpoint.snapshot_every_images", "train.bad_steps.returns", "train.log_every_images",
         "train.check_attention_every_steps", "engine.gradient_clip", "engine.micro_batch", "stop.margin_seconds",
         "stop.save_seconds", "watchdog.grace_seconds", "watchdog.end_after_seconds"),
        lambda value: value >= 0,
        "at least 0",
    ),
    (("train.beta1", "train.beta2"), lambda value: 0 <= value < 1, "at least 0 and below 1"),
)  # fmt: skip


def check_command(command: TrainCommand) -> None:
    check_numbers(command)
    if command.prior not in PRIORS:
        raise UserError(f"prior={command.prior!r} is unknown; use one of {', '.join(PRIORS)}")
    if command.prior == "gaussian" and command.stage.name != "flow":
        raise UserError(
            f"prior=gaussian is the flow-matching baseline and has one stage, flow; stage={command.stage.name} "
            "belongs to the learned prior"
        )
    coupling = getattr(command.stage, "coupling", "independent")
    if command.prior == "learned" and coupling != "independent":
        raise UserError(
            f"stage.coupling={coupling} needs prior=gaussian: a draw of the learned prior belongs to its image; leave "
            "stage.coupling=independent"
        )
    try:
        check_sizes(command)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_numbers(command: TrainCommand) -> None:
    """Refuse what is out of its range; a value that is no number is."""
    for keys, holds, words in RANGES:
        for key in keys:
            value: Any = functools.reduce(getattr, key.split("."), command)
            if value is not None and not holds(value):
                raise UserError(f"{key}={value} must be {words}")


def check_sizes(command: TrainCommand) -> None:
    """Refuse levels that cannot tile what their model will see, before anything is built."""
    model, size = command.model, command.model.image_size
    if command.stage.name == "flow":
        check_grid(model.velocity.levels, model.velocity.patch_size, size, size, key="model.velocity")
    if command.prior == "learned":
        _, height, width = latent_shape(model.auxiliary, size, size)
        if command.stage.name == "latent_sampler":
            check_grid(model.latent_sampler.levels, 1, height, width, key="model.latent_sampler")
