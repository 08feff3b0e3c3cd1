"""From a composed configuration to a dataclass whose values are checked, before anything is built.

`typed` checks each field: its type, the range that is declared with it (see lediflow.ranges) and its __post_init__.
`check_command` checks options of a training against each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.config import conditioning_augmentation
from lediflow.engine.engines import engine_kind
from lediflow.engine.precision import check_options
from lediflow.errors import UserError
from lediflow.models.specs import latent_shape
from lediflow.nn.specs import check_grid
from lediflow.ranges import OutOfRangeError, check_ranges
from lediflow.stages import STAGES, stage_kind
from lediflow.stages.protocol import check_unwidened
from lediflow.training.exporting import BEST


def typed(config: DictConfig) -> Any:
    """Convert a composed configuration to its dataclass, with interpolations resolved and numbers checked.

    Raises UserError, with the full name of the option, for an invalid value.
    """
    try:
        command = OmegaConf.to_object(config)
    except ValueError as error:  # raised by a __post_init__
        key, message = key_of_contradiction(config), str(error)
        joint = "." if isinstance(error, OutOfRangeError) else ": "
        raise UserError(message if message.startswith(key) else f"{key}{joint}{message}") from error
    check_names(config)
    check_ranges(command)
    check_blanks(command)
    return command


def check_names(node: DictConfig | ListConfig, key: str = "") -> None:
    """Reject options that no dataclass has, which Hydra adds for a leading + and nothing would read."""
    kind = OmegaConf.get_type(node)
    if dataclasses.is_dataclass(kind) and (
        added := {*node} - {field.name for field in dataclasses.fields(kind)}
    ):
        name = f"{key}.{min(added)}".lstrip(".")
        raise UserError(f"+{name}: there is no option {name}; --help lists those that exist")
    for name, part in parts_of(node, key):
        check_names(part, name)


def check_blanks(command: Any, prefix: str = "") -> None:
    """Reject an empty string for a name, such as run=$UNSET gives: as a path it would be the working folder.

    data.path may be empty, since a dry run needs no data.
    """
    for field in dataclasses.fields(command):
        value, key = getattr(command, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check_blanks(value, f"{key}.")
        elif isinstance(value, str) and not value.strip():
            if field.default is None:
                raise UserError(f"{key}= is empty; give a value, or {key}=null for no value")
            if not prefix and field.default in (dataclasses.MISSING, MISSING):
                raise UserError(f"{key}= is empty, and it has no default; give a value")


def key_of_contradiction(node: DictConfig | ListConfig, key: str = "") -> str:
    """The key of the innermost part whose dataclass raises ValueError: model.velocity.levels[1]; "" at the root."""
    for name, part in parts_of(node, key):
        try:
            OmegaConf.to_object(part)
        except ValueError:
            return key_of_contradiction(part, name)
    return key


def parts_of(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, DictConfig | ListConfig]]:
    """The mappings and lists directly inside a node, with their full keys."""
    if isinstance(node, DictConfig):
        given = [str(name) for name in node if not OmegaConf.is_missing(node, name)]
        named = [(f"{key}.{name}".lstrip("."), node[name]) for name in given]
    else:
        named = [(f"{key}[{number}]", part) for number, part in enumerate(node)]
    return ((name, part) for name, part in named if isinstance(part, DictConfig | ListConfig))


def check_command(command: TrainCommand) -> None:
    """Raise UserError for options of a training that cannot be combined."""
    engine_kind(command.engine.name)  # raises for a name that is not in the table
    kind = stage_kind(command.stage.name)
    if command.prior == "gaussian" and not kind.allows_gaussian_prior:
        allowed = [name for name, other in STAGES.items() if other.allows_gaussian_prior]
        count = "one stage" if len(allowed) == 1 else f"{len(allowed)} stages"
        raise UserError(
            f"prior=gaussian is the flow-matching baseline and has {count}, {', '.join(allowed)}; "
            f"stage={command.stage.name} belongs to the learned prior"
        )
    kind.check(command)
    check_teacher(command)
    check_sampler(command)
    if kind.widens_prior and command.prior == "gaussian":
        check_unwidened(command.stage)
    check_augmentation(command)
    check_best(command)
    if command.engine.cuda_graphs and kind.waits_for_cpu(command.stage):
        raise UserError(
            f"engine.cuda_graphs=true records the passes of stage={command.stage.name}, which wait for the CPU with "
            "these options (as stage.coupling=optimal_transport does); leave it at null"
        )
    check_options(command.engine)
    check_channels(command)
    try:
        check_sizes(command)
        kind.trained_spec(command)  # refuses a flow map of one layer
    except ValueError as error:
        raise UserError(str(error)) from error


def check_teacher(command: TrainCommand) -> None:
    """Reject a teacher without an objective that has one, and such an objective without a teacher."""
    kind, stage = stage_kind(command.stage.name), command.stage
    if command.teacher is None and kind.has_teacher(stage):
        raise UserError(
            f"stage.objective={stage.objective} learns from a finished run of stage={stage.name}; give it: teacher=RUN"
        )
    if command.teacher is not None and not kind.has_teacher(stage):
        able = " and ".join(name for name, other in STAGES.items() if other.distils)
        advice = "set stage.objective=flow_map or reflow" if kind.distils else f"those of {able} can have one"
        raise UserError(
            f"teacher={command.teacher}, but this training of stage={stage.name} has no teacher; {advice}, or leave "
            "teacher= out"
        )
    if kind.needs_derivatives(stage) and command.engine.name == "deepspeed" and command.engine.zero == 3:
        raise UserError(
            f"stage.objective={stage.objective} differentiates the model forward, which is impossible where ZeRO 3 "
            "shards the weights; use engine.zero=0 to 2, or stage.objective=flow_map"
        )
    if kind.needs_derivatives(stage) and command.engine.float8:
        raise UserError(
            f"stage.objective={stage.objective} differentiates the model forward, which products in 8 bits do not "
            "support; use engine.float8=false"
        )


def check_sampler(command: TrainCommand) -> None:
    """Reject a latent sampler without paths that start from its latents, and a share of paths without a sampler."""
    kind, stage = stage_kind(command.stage.name), command.stage
    has_share = kind.samples_latents and stage.sampled_share not in (0, type(stage).sampled_share)
    if command.sampler is None and has_share:
        raise UserError(
            f"stage.sampled_share={stage.sampled_share:g} is the share of a teacher's paths that start from latents of "
            "a latent sampler, and this training has none; give it, sampler=RUN with stage.objective=flow_map or "
            "reflow, or leave stage.sampled_share out"
        )
    if command.sampler is not None and not kind.follows_paths(stage):
        raise UserError(
            f"sampler={command.sampler} draws latents for a flow's teacher to start from, and this training of "
            f"stage={stage.name} has no such paths; leave sampler= out, or train stage=flow "
            "stage.objective=flow_map teacher=RUN"
        )
    if command.sampler is not None and command.prior == "gaussian":
        raise UserError(
            f"sampler={command.sampler} draws latents, and the Gaussian baseline has none; leave sampler= out"
        )


def check_augmentation(command: TrainCommand) -> None:
    """Reject augmentation of a model without the augmentation input: it would generate augmented images."""
    kind, probability = stage_kind(command.stage.name), command.data.augment.probability
    if probability and not getattr(command.model, kind.trains).augmentation:
        raise UserError(
            f"data.augment.probability={probability:g} transforms images, and a model without the augmentation input "
            f"would generate such images; set model.{kind.trains}.augmentation=true, or data.augment.probability=0"
        )
    kinds = [field.name for field in dataclasses.fields(command.data.augment) if field.name != "probability"]
    if probability and not any(getattr(command.data.augment, kind) for kind in kinds):
        raise UserError(
            f"data.augment.probability={probability:g}, but every kind of transformation is off; leave one of "
            f"data.augment.{{{','.join(kinds)}}} on, or set data.augment.probability=0"
        )
    given = conditioning_augmentation(command.data)
    if probability and not any(getattr(given, kind) for kind in kinds):
        flips = [kind for kind in kinds if getattr(command.data.augment, kind)]
        made, off = (" and ".join(f"{of}.{flip}" for flip in flips) for of in ("data.augment", "data"))
        raise UserError(
            f"data.augment.probability={probability:g} with no transformation but {made} does nothing: {off} already "
            f"flips the images, without an input of the model; set {off} to false, switch on another kind of "
            "data.augment, or set data.augment.probability=0"
        )
    if probability and kind.encode_once(command.stage):
        raise UserError(
            f"stage.encode_once=true, but with data.augment.probability={probability:g} an image differs each time it "
            "is seen; leave stage.encode_once out, or set data.augment.probability=0"
        )


def check_best(command: TrainCommand) -> None:
    """Reject export=best and patience without held-out losses, and a patience shorter than the warm-up."""
    train = command.train
    asked = [f"train.export={train.export}"] * (train.export == BEST)
    asked += [f"train.patience_images={train.patience_images}"] * bool(train.patience_images)
    if not asked:
        return
    needs = f"{' and '.join(asked)} needs the loss on held-out samples, but"
    if train.validation.every_images == 0:
        raise UserError(
            f"{needs} train.validation.every_images=0 never computes it; set train.validation.every_images=null, or "
            "to a number of images"
        )
    if not command.data.held_out_fraction:
        raise UserError(
            f"{needs} data.held_out_fraction=0 holds out no samples; set data.held_out_fraction=0.05, for instance"
        )
    if train.patience_images and train.patience_images < train.schedule.warmup_images:
        raise UserError(
            f"train.patience_images={train.patience_images} could end the run while its learning rate still rises "
            f"(train.schedule.warmup_images={train.schedule.warmup_images}); raise the patience, or shorten the warm-up"
        )
    kind = stage_kind(command.stage.name)
    growing = kind.warmup_images(command.stage)
    if train.export == BEST and kind.warmup and growing >= train.images:
        raise UserError(
            f"train.export=best with stage.{kind.warmup.option}={growing}: {kind.warmup.grows} would still grow at the "
            f"end (train.images={train.images}), and losses under different values of {kind.warmup.grows} have no "
            f"best; shorten the warm-up: lower stage.{kind.warmup.option}, or train longer"
        )


def check_sizes(command: TrainCommand) -> None:
    """Reject levels whose tokens or windows do not divide the input of their model."""
    kind, size = stage_kind(command.stage.name), command.model.image_size
    spec = getattr(command.model, kind.trains)
    levels, patch_size, key = spec.levels, getattr(spec, "patch_size", 1), f"model.{kind.trains}"
    if kind.trains != "auxiliary" and not kind.on_latents:
        check_grid(levels, patch_size, size, size, key=key)
    if command.prior == "learned":
        _, height, width = latent_shape(command.model.auxiliary, size, size)
        if kind.on_latents:
            check_grid(levels, patch_size, height, width, key=key, subject="latent")


def check_channels(command: TrainCommand) -> None:
    """Reject models whose numbers of channels differ from those of what they are given."""
    kind, model = stage_kind(command.stage.name), command.model
    names = dict.fromkeys([kind.trains, *["auxiliary"] * (command.prior == "learned")])
    for name in names:
        channels = getattr(getattr(model, name), "image_channels", model.channels)
        if channels != model.channels:
            raise UserError(
                f"model.{name}.image_channels={channels}, but the models' input has model.channels={model.channels}; "
                f"leave model.{name}.image_channels out, which is model.channels, and set model.channels to the "
                "channels of the data"
            )
    latents = getattr(getattr(model, kind.trains), "latent_channels", model.auxiliary.latent_channels)
    if kind.on_latents and latents != model.auxiliary.latent_channels:
        raise UserError(
            f"model.{kind.trains}.latent_channels={latents}, but latents have model.auxiliary.latent_channels="
            f"{model.auxiliary.latent_channels}; leave model.{kind.trains}.latent_channels out, which is the same"
        )
