"""Options of a command line that have no effect in combination with the others: they are named, not ignored.

A warning, not an error: the same options are given to all stages of an experiment, or to all modes of an evaluation.
Only options that were typed are examined. What depends on the files that a command opens is said where they are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lediflow.config.composition.sweep import key_of
from lediflow.data.augmentation import AugmentConfig
from lediflow.flow.solvers import ignores_steps
from lediflow.stages import STAGES, stage_kind
from lediflow.stages.distillation import FLOW_MAP, REFLOW

SAMPLING = ("solver", "steps", "temperature", "latent_solver", "latent_steps", "labels", "guidance")


class Idle(NamedTuple):
    """Options that do nothing if `holds` is true of the command's configuration; a name stands for all below it."""

    options: tuple[str, ...]
    holds: Callable[[Any], bool]
    because: str
    fails: str = "has no effect"


def has_no_parent(config: Any) -> bool:
    """Whether this training builds on no auxiliary model."""
    return config.prior == "gaussian" or not stage_kind(config.stage.name).has_parent


def objective(config: Any) -> str:
    """The objective of the stage; "" for a stage without objectives."""
    return str(config.stage.get("objective", ""))


def other_stage(name: str) -> Callable[[Any], bool]:
    return lambda config: config.stage.name != name


def in_mode(*modes: str) -> Callable[[Any], bool]:
    """Whether `evaluate` runs in one of these modes; folders of pictures and --watch are modes here."""
    return lambda config: mode_of(config) in modes


def mode_of(config: Any) -> str:
    """The first of them that `evaluate` would choose."""
    if config.mode == "compare":
        return "compare"
    return "watch" if config.watch is not None else "images" if config.images is not None else config.mode


TRAIN = (
    Idle(("parent", "other_data"), has_no_parent, "this training builds on no auxiliary model"),
    Idle(
        ("stage.exponent", "stage.cap", "stage.normalize_weights"),
        lambda config: config.prior == "gaussian",
        "prior=gaussian has no sigma to weight the loss by",
    ),
    Idle(
        ("model.velocity.conditioning",),
        lambda config: config.prior == "gaussian",
        "the flow of prior=gaussian has no latent",
    ),
    Idle(
        ("model.velocity.latent_shape", "model.velocity.is_flow_map", "model.latent_sampler.is_flow_map"),
        lambda config: True,
        "it follows from prior=, model.auxiliary and stage.objective",
    ),
    Idle(
        ("stage.teacher_steps",),
        lambda config: objective(config) not in (REFLOW, FLOW_MAP),
        "only stage.objective=reflow and flow_map follow a teacher's paths",
    ),
    Idle(
        ("stage.teacher_pairs",),
        lambda config: objective(config) != FLOW_MAP,
        "only stage.objective=flow_map has pairs of times",
    ),
    Idle(
        ("stage.sampled_share",),
        lambda config: config.sampler is None,
        "no path starts from latents of a latent sampler without sampler=RUN",
    ),
    Idle(
        ("stage.time_mean", "stage.time_sd"),
        lambda config: config.stage.get("time") != "logit_normal",
        "it belongs to stage.time=logit_normal",
    ),
    Idle(
        ("stage.time_strata",),
        lambda config: config.stage.get("time") != "stratified",
        "it belongs to stage.time=stratified",
    ),
    Idle(
        ("stage.label_dropout",),
        lambda config: not config.model.velocity.num_classes and not config.model.latent_sampler.num_classes,
        "model.velocity.num_classes=0: the models have no classes",
    ),
    Idle(
        tuple(f"data.augment.{field.name}" for field in fields(AugmentConfig) if field.name != "probability"),
        lambda config: not config.data.augment.probability,
        "data.augment.probability=0 switches augmentation off",
    ),
    Idle(
        ("data.reading.cache_gib",),
        lambda config: config.data.reading.cache is None,
        "data.reading.cache=null: there is no cache",
    ),
    Idle(
        ("data.reading.whole_mib",),
        lambda config: config.data.reading.method != "auto",
        "it belongs to data.reading.method=auto",
    ),
    Idle(
        ("data.reading.memory_gib", "data.reading.remote_options"),
        lambda config: "://" not in str(config.data.path),
        "data.path is a folder, not an address",
    ),
    Idle(
        ("train.validation.samples",),
        lambda config: not config.data.held_out_fraction,
        "data.held_out_fraction=0 holds out no images to measure a loss on",
    ),
    Idle(
        ("train.validation.samples",),
        lambda config: config.train.validation.every_images == 0,
        "train.validation.every_images=0 measures no loss on held-out images",
    ),
    Idle(
        tuple(f"train.pictures.{name}" for name in ("time_share", "sampler", "flow", "codec_path")),
        lambda config: not config.train.pictures.every_images,
        "train.pictures.every_images=0 makes no pictures",
    ),
    Idle(
        ("engine.zero", "engine.offload"),
        lambda config: config.engine.name == "local",
        "engine=local keeps the whole state on its device; use engine=deepspeed",
    ),
    Idle(
        ("engine.compile_mode",),
        lambda config: (
            config.engine.compile is False
            or (config.engine.compile is None and config.engine.device == "cpu")
        ),
        "nothing is compiled: set engine.compile=true",
    ),
    Idle(
        ("nodes", "dry_run_ranks"),
        lambda config: not config.dry_run,
        "it belongs to dry_run=true",
    ),
    *(
        Idle((f"per_stage.{name}",), other_stage(name), "this training is of another stage")
        for name in STAGES
    ),
)
ENCODE = (
    Idle(
        ("codec.path", "codec.precision", "compile", "dtype"),
        lambda config: config.codec.name == "pixels",
        "codec=pixels stores the bytes of the pictures and has no network",
    ),
)
STEPS = Idle(
    ("steps",),
    lambda config: ignores_steps(config.solver) and config.steps != 0,  # 0: the prior alone, by any solver
    "this solver chooses its own steps",
)
LATENT_STEPS = Idle(
    ("latent_steps",),
    lambda config: ignores_steps(config.latent_solver),
    "the latent sampler's solver chooses its own steps",
)
BASELINE = Idle(
    ("latent_solver", "latent_steps"),
    lambda config: config.sampler is None,
    "there is no latent sampler: sampler= is not given",
)
SAMPLE = (STEPS, LATENT_STEPS, BASELINE)
EVALUATE = (
    STEPS,
    LATENT_STEPS,
    Idle(
        ("latent_solver", "latent_steps"),
        lambda config: mode_of(config) == "metrics" and config.sampler is None,
        "there is no latent sampler: sampler= is not given",
    ),
    Idle(
        ("steps",), in_mode("metrics", "watch"), "the rows are those of step_counts", "sets one figure only"
    ),
    Idle(("solver", "steps"), in_mode("grid", "stages"), "these modes measure grid.solvers and grid.steps"),
    Idle(("step_counts",), in_mode("grid", "stages"), "these modes measure grid.steps"),
    Idle(("temperature",), in_mode("grid"), "mode=grid measures grid.temperatures"),
    Idle(("grid",), in_mode("metrics", "watch"), "it belongs to mode=grid and mode=stages; use step_counts"),
    Idle(
        ("metrics.neighbors",),
        lambda config: config.metrics.estimator == "streaming",
        "metrics.estimator=streaming has no neighbours",
    ),
    Idle(
        ("mode",),
        lambda config: config.mode != mode_of(config) and config.mode != "metrics",
        "--watch and images=DIR are modes of their own",
    ),
    Idle(("images", "reference"), in_mode("watch"), "--watch RUN evaluates the checkpoints of that run"),
    Idle(("watch_seconds",), lambda config: config.watch is None, "it belongs to --watch"),
    Idle(("results",), lambda config: config.mode != "compare", "it belongs to mode=compare"),
    Idle(
        (
            *SAMPLING,
            "step_counts",
            "grid",
            "count",
            "features",
            "metrics",
            "keep_features",
            "sampler",
            "runtime",
            "precision",
        ),
        in_mode("prior"),
        "mode=prior generates no images; data.split and reference_count choose the real ones",
    ),
    Idle(
        (
            *SAMPLING,
            "step_counts",
            "grid",
            "count",
            "reference_count",
            "sampler",
            "data",
            "codec_path",
            "runtime",
            "precision",
        ),
        in_mode("images"),
        "images=DIR are finished pictures, compared with reference=DIR, all of them",
    ),
    Idle(
        (*SAMPLING, "step_counts", "grid", "count", "run", "runs", "sampler", "data", "features", "metrics"),
        in_mode("compare"),
        "mode=compare reads finished results",
    ),
)
MASKS = "masks= says where the faces are"
ANONYMISE = (*SAMPLE, Idle(("certainty", "margin"), lambda config: config.masks is not None, MASKS))
# its measures find the faces again, with this certainty
ANONYMITY = (*SAMPLE, Idle(("margin",), lambda config: config.masks is not None, MASKS))
IDLE = {
    "train": TRAIN,
    "encode": ENCODE,
    "sample": SAMPLE,
    "studio": SAMPLE,
    "export": SAMPLE,
    "evaluate": EVALUATE,
    "edit_interpolate": SAMPLE,
    "edit_vary": SAMPLE,
    "edit_inpaint": SAMPLE,
    "edit_attribute": SAMPLE,
    "edit_anonymise": ANONYMISE,
    "edit_anonymity": ANONYMITY,
}


def idle_options(command: str, config: DictConfig, typed: Iterable[str]) -> list[str]:
    """A sentence for each override in `typed` that has no effect on this configuration; the first reason counts."""
    found = {}
    for override in typed:
        key = key_of(override)
        for rule in IDLE.get(command, ()):
            if is_named(key, rule.options) and key not in found and holds(rule, config):
                found[key] = f"{override} {rule.fails}: {rule.because}"
    return [*found.values()]


def is_named(key: str, options: Sequence[str]) -> bool:
    return any(key == option or key.startswith(f"{option}.") for option in options)


def holds(rule: Idle, config: DictConfig) -> bool:
    """Whether the rule applies; not if an option that it depends on is missing, which the command itself reports."""
    try:
        return rule.holds(config)
    except OmegaConfBaseException:
        return False
