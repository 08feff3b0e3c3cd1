"""The frozen teacher of stage.objective=reflow and flow_map: the averaged weights of a finished run of the same stage.

The student has the teacher's specification and begins with its weights. Prior, parent, codec and image size must be
the teacher's, too: paths of another prior, or in another latent space, are no paths of the student. The flow of a
student starts from a prior as wide as the teacher's. Records name the teacher by the hash of its weights.

A flow's teacher may start from latents that a latent sampler (sampler=RUN) generates, as it does in use: the sampler is
pinned likewise, and has the same parent. It may be a flow map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.codecs.protocol import describe_codec
from lediflow.config.building.models import Parent, build_trained_model, load_export, trained_spec
from lediflow.config.composition.advice import require_export
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.reader import ShardReader
from lediflow.errors import UserError
from lediflow.flow.widening import Width, recorded_width
from lediflow.models import LatentSampler, LatentSamplerSpec, Spec, VelocityModel
from lediflow.models.cost import model_cost
from lediflow.models.specs import LATENT_JUMPS, LATENT_STEPS, AuxiliarySpec, latent_shape
from lediflow.nn.cost import Cost
from lediflow.records import Record
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind
from lediflow.stages.derivatives import PathDerivative
from lediflow.stages.distillation import FLOW_MAP
from lediflow.stages.protocol import AUTO, Stage, given_width, scale_of
from lediflow.training.resume import differences
from lediflow.training.throughput import parent_flops

PIXELS = {"name": "pixels"}
MODELS: dict[str, type[VelocityModel] | type[LatentSampler]] = {
    "velocity": VelocityModel,
    "latent_sampler": LatentSampler,
}


@dataclass(frozen=True)
class LatentSource:
    """A frozen latent sampler, identified by the hash of its weights."""

    model: LatentSampler
    path: str
    sha256: str
    facts: Record  # its export/config.json


@dataclass(frozen=True)
class Teacher:
    """A frozen model of the kind that the run trains, identified by the hash of its weights."""

    model: VelocityModel | LatentSampler
    path: str
    sha256: str
    facts: Record  # its export/config.json
    latents: LatentSource | None = None  # of a share of its paths; None: all latents are the images'

    @property
    def models(self) -> list[VelocityModel | LatentSampler]:
        """All frozen models."""
        return [self.model, *([self.latents.model] if self.latents else [])]

    @property
    def width(self) -> Width:
        """The width of the prior that its paths start from; not widened for a latent sampler."""
        return recorded_width(self.facts)


def has_teacher(command: TrainCommand) -> bool:
    """Whether the command's objective learns from a teacher."""
    return stage_kind(command.stage.name).has_teacher(command.stage)


def load_teacher(command: TrainCommand) -> Teacher | None:
    """Load the teacher; None if the objective has none. UserError for a run that cannot be one of this run."""
    if not has_teacher(command):
        return None
    folder, stage = RunFolder(Path(str(command.teacher))), command.stage.name
    role = f"the teacher of stage.objective={command.stage.objective}"
    export = require_export(folder, role, f"python -m lediflow.train stage={stage} run={folder.root} ...")
    facts = folder.exported_facts()
    if facts["stage"] != stage or facts["prior"] != command.prior:
        raise UserError(
            f"teacher={folder.root} is a run of stage={facts['stage']} prior={facts['prior']}, and this is one of "
            f"stage={stage} prior={command.prior}; give a run of the same stage and prior"
        )
    model = load_export(MODELS[stage_kind(stage).trains], export, f"a run of stage={stage}")
    if model.spec.is_flow_map:
        source = (facts.get("teacher") or {}).get("path", "the run that it was distilled from")
        raise UserError(f"teacher={folder.root} is itself a flow map; give its own teacher: {source}")
    check_same_model(folder.root, model.spec, trained_spec(command))
    teacher = Teacher(
        model.eval().requires_grad_(False),
        str(folder.root),
        folder.weights_hash(),
        facts,
        load_latent_source(command),
    )
    check_same_width(command, teacher)
    return teacher


def load_latent_source(command: TrainCommand) -> LatentSource | None:
    """Load the latent sampler of the teacher's paths; None if none of them starts from its latents."""
    if not draws_latents(command):
        return None
    folder = RunFolder(Path(str(command.sampler)))
    export = require_export(
        folder, "the latent sampler", f"python -m lediflow.train stage=latent_sampler run={folder.root} ..."
    )
    model = load_export(LatentSampler, export, "sampler=RUN, a run of stage=latent_sampler")
    ours, theirs = command.model.velocity.num_classes, model.spec.num_classes
    if theirs not in (0, ours):
        raise UserError(
            f"sampler={folder.root} generates latents of {theirs} classes, but model.velocity.num_classes={ours}; give "
            "a latent sampler of these classes, or one without"
        )
    return LatentSource(
        model.eval().requires_grad_(False), str(folder.root), folder.weights_hash(), folder.exported_facts()
    )


def draws_latents(command: TrainCommand) -> bool:
    """Whether a share of the teacher's paths starts from latents of a latent sampler."""
    is_able = stage_kind(command.stage.name).follows_paths(command.stage)
    return command.sampler is not None and is_able and command.stage.sampled_share > 0


def latents_cost(
    command: TrainCommand, sampler: LatentSamplerSpec, parent: AuxiliarySpec | None = None
) -> Cost:
    """Parameters of the sampler, and FLOPs per image of drawing a latent, for a flow map also of decoding it.

    Without the parent's specification, that of the command counts.
    """
    parent, size = parent or command.model.auxiliary, command.model.image_size
    cost = model_cost(sampler, *latent_shape(parent, size, size)[1:])
    calls = LATENT_JUMPS if sampler.is_flow_map else 2 * LATENT_STEPS
    decoding = 0
    if command.stage.objective == FLOW_MAP:
        decoder = dataclasses.replace(stage_kind(command.stage.name), calls=("decoder",))
        decoding = parent_flops(decoder, parent, size)
    return Cost(cost.total.parameters, calls * cost.total.flops + decoding)


def pinned_hashes(command: TrainCommand) -> dict[str, str]:
    """SHA-256 of the weights of the teacher, and of the sampler of its latents; without those that no longer exist."""
    named = {"teacher": command.teacher if has_teacher(command) else None}
    named["sampler"] = command.sampler if draws_latents(command) else None
    folders = {name: RunFolder(Path(path)) for name, path in named.items() if path is not None}
    return {name: folder.weights_hash() for name, folder in folders.items() if folder.is_exported}


def identity_of(teacher: Teacher) -> dict[str, str]:
    """The part of a run's identity that a teacher adds, as `pinned_hashes`."""
    return {"teacher": teacher.sha256} | ({"sampler": teacher.latents.sha256} if teacher.latents else {})


def check_same_model(folder: Path, found: Spec, asked: Spec) -> None:
    """Reject a teacher of another specification; dropout may differ."""
    theirs, ours = (without_dropout(dataclasses.asdict(spec)) for spec in (found, asked))
    del theirs["is_flow_map"], ours["is_flow_map"]
    if changed := differences(theirs, ours):
        raise UserError(
            f"teacher={folder} has another model ({'; '.join(changed)}); a student begins with its teacher's weights, "
            "so give the model= options of the teacher"
        )


def without_dropout(options: Any) -> Any:
    """The options of a model without its dropout rates."""
    if isinstance(options, dict):
        return {name: without_dropout(value) for name, value in options.items() if name != "dropout"}
    return [without_dropout(entry) for entry in options] if isinstance(options, list) else options


def check_same_width(command: TrainCommand, teacher: Teacher) -> None:
    """Reject a width of the prior other than the teacher's; `auto` is the teacher's."""
    if not stage_kind(command.stage.name).widens_prior or command.prior != "learned":
        return
    options, width = command.stage, teacher.width
    given = given_width(options)
    has_other_scale = options.prior_scale != AUTO and scale_of(options) != width.scale
    if (given is not None and given != width) or has_other_scale:
        raise UserError(
            f"teacher={teacher.path} starts from a prior with stage.prior_widening={width.added:g} "
            f"stage.prior_scale={width.scale:g}, this run from one with {options.prior_widening} and "
            f"{options.prior_scale}; leave both at {AUTO}, which is the teacher's"
        )


def check_teacher_data(
    command: TrainCommand, teacher: Teacher, parent: Parent | None, reader: ShardReader
) -> None:
    """Reject a teacher that was trained at another size, with another codec, or on another auxiliary model."""
    facts, size = teacher.facts, command.model.image_size
    if facts["image_size"] != size:
        raise UserError(
            f"teacher={teacher.path} was trained at image_size {facts['image_size']}, but model.image_size={size}; "
            "give a teacher of this size"
        )
    theirs, ours = describe_codec(facts["codec"]), describe_codec(reader.index.contents.codec or PIXELS)
    if theirs != ours:
        raise UserError(
            f"teacher={teacher.path} was trained on {theirs}, but data.path={command.data.path} holds {ours}; give "
            "data of the teacher's codec, or a teacher of this data"
        )
    pinned = facts.get("parent") or {}
    if parent is not None and pinned.get("sha256") != parent.sha256:
        raise UserError(
            f"teacher={teacher.path} was trained on the auxiliary model {pinned.get('path')} "
            f"({str(pinned.get('sha256'))[:12]}), but parent={parent.path} ({parent.sha256[:12]}) has other weights; "
            "give the teacher's parent"
        )
    if parent is not None and teacher.latents is not None:
        check_latent_source(teacher.latents, parent)


def check_latent_source(latents: LatentSource, parent: Parent) -> None:
    """Reject a latent sampler of another auxiliary model: its latents mean other images."""
    pinned = latents.facts.get("parent") or {}
    if pinned.get("sha256") != parent.sha256:
        raise UserError(
            f"sampler={latents.path} was trained on the auxiliary model {pinned.get('path')} "
            f"({str(pinned.get('sha256'))[:12]}), but parent={parent.path} ({parent.sha256[:12]}) has other weights; "
            "give a latent sampler of this parent"
        )


def check_derivatives(command: TrainCommand, teacher: Teacher, device: torch.device) -> None:
    """RuntimeError if an objective needs derivatives of the model along paths, and they come out wrong here.

    Checked on a copy in float64, which holds the teacher's weights.
    """
    if not stage_kind(command.stage.name).needs_derivatives(command.stage):
        return
    copy = build_trained_model(command).to(device, torch.float64)
    copy.load_state_dict(teacher.model.state_dict())
    size, inputs = command.model.image_size, dict[str, Tensor | None]()
    shape = (command.model.channels, size, size)
    if isinstance(copy, LatentSampler):
        shape = latent_shape(command.model.auxiliary, size, size)
    elif isinstance(copy, VelocityModel) and copy.spec.latent_shape:
        inputs["z"] = torch.ones(2, *copy.spec.latent_shape, dtype=torch.float64, device=device)
    PathDerivative(copy).check((2, *shape), inputs)


def set_teacher(
    command: TrainCommand,
    stage: Stage,
    teacher: Teacher,
    student: nn.Module,
    run_frozen: Callable[[Any], Any],
) -> None:
    """Give a stage its teacher, the sampler of the teacher's latents, and the width of the prior of its paths.

    `student` is the trained model without a wrapper; `run_frozen` prepares a frozen model to be run by the engine.
    """
    kind = stage_kind(command.stage.name)
    if kind.can_have_teacher(stage):
        stage.teacher, stage.derivative = run_frozen(teacher.model), PathDerivative(student)
    if kind.can_sample_latents(stage) and teacher.latents is not None:
        stage.latent_sampler = run_frozen(teacher.latents.model)
    if kind.has_width(stage) and stage.auxiliary is not None:
        stage.width = teacher.width
