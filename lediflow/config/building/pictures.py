"""Pictures while training: from options to what the pictures of a milestone are made of.

Named runs and the codec are checked when a run begins, where a mistake costs nothing. When a run is continued, they are
only reported: pictures never stop a training.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lediflow.config.building.inputs import Inputs
from lediflow.config.building.models import load_export
from lediflow.config.building.pipeline import facts_at, load_decoder
from lediflow.config.composition.advice import require_export
from lediflow.config.composition.schema import TrainCommand
from lediflow.engine.protocol import Engine
from lediflow.errors import UserError
from lediflow.flow.widening import Width, recorded_width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.run_folder import RunFolder
from lediflow.stages import Place, stage_kind, stages_in
from lediflow.stages.protocol import Stage
from lediflow.text import shown_hash
from lediflow.training.pictures.chain import Display, FixedImages, PictureChain, picture_chain
from lediflow.training.pictures.drawings import Scene
from lediflow.training.pictures.monitor import for_pictures

log = logging.getLogger(__name__)

PIXELS = {"name": "pixels"}


@dataclass(frozen=True)
class Extras:
    """What pictures have besides the models that the run trains or builds on; only rank 0 loads it."""

    display: Display
    sampler: LatentSampler | None = None
    velocity: VelocityModel | None = None
    # of the named velocity's prior
    width: Width = field(default_factory=Width)


@dataclass
class PictureScenes:
    """Makes the scene of a milestone (monitor.SceneMaker); `auxiliary` is the frozen parent.

    Every rank must construct it at the same place. UserError if a named run or codec cannot be used and the run has no
    checkpoint yet.
    """

    command: TrainCommand
    inputs: Inputs
    engine: Engine
    auxiliary: AuxiliaryModel | None
    extras: Extras = field(init=False)
    images: FixedImages = field(init=False)

    def __post_init__(self) -> None:
        config = self.command.train.pictures
        self.extras = Extras(Display((self.inputs.reader.index.contents.codec or PIXELS)["name"]))
        if any(named is not None for named in (config.sampler, config.flow, config.codec_path)):
            self.extras = agreed_extras(self.command, self.inputs, self.engine, self.extras)
        self.images = FixedImages(self.inputs.reader, self.command.data.held_out_fraction, self.engine.device)

    def __call__(self, model: Any, stage: Stage, images_seen: int) -> Scene:
        """The scene of a milestone; `model` is the averaged one that the run trains."""
        command, size = self.command, self.command.model.image_size
        place = stage_kind(command.stage.name).place
        assert place is not None
        return Scene(
            chain=chain_of(command, model, self.auxiliary, stage, self.extras),
            place=place,
            images=self.images,
            display=self.extras.display,
            shape=(command.model.channels, size, size),
            device=self.engine.device,
            images_seen=images_seen,
        )


def chain_of(
    command: TrainCommand, model: Any, auxiliary: AuxiliaryModel | None, stage: Stage, extras: Extras
) -> PictureChain:
    """The models of generation, with the averaged `model` in its place."""
    kind, size = stage_kind(command.stage.name), command.model.image_size
    match kind.place:
        case "auxiliary":
            return picture_chain(size, auxiliary=model)
        case "flow":
            width = stage.width if kind.has_width(stage) else None
            return picture_chain(
                size, auxiliary=auxiliary, velocity=model, sampler=extras.sampler, width=width
            )
        case _:
            return picture_chain(
                size, auxiliary=auxiliary, velocity=extras.velocity, sampler=model, width=extras.width
            )


def agreed_extras(command: TrainCommand, inputs: Inputs, engine: Engine, extras: Extras) -> Extras:
    """What rank 0 could load besides `extras`, or a UserError on every rank."""
    fault, is_begun = "", False
    if engine.ranks.is_first:
        is_begun = any(RunFolder(Path(command.run)).checkpoints.glob("[0-9]" * 12))
        try:
            extras = load_extras(command, inputs, engine, extras)
        except (UserError, ValueError) as error:
            fault = str(error)
    fault, is_begun = engine.group.broadcast((fault, is_begun))
    if fault and not is_begun:
        raise UserError(fault)
    if fault and engine.ranks.is_first:
        log.warning("pictures are made without it: %s", fault)
    return extras


def load_extras(command: TrainCommand, inputs: Inputs, engine: Engine, extras: Extras) -> Extras:
    """The named run and the codec of the options; UserError for one that cannot be used."""
    config, codec = command.train.pictures, inputs.reader.index.contents.codec or PIXELS
    parent = inputs.parent.sha256 if inputs.parent else None
    if config.codec_path is not None:
        if codec["name"] == "pixels":
            raise UserError(
                f"train.pictures.codec_path={config.codec_path} decodes latents, and data.path={command.data.path} "
                "holds pixels; leave it out"
            )
        decode = load_decoder(codec, config.codec_path, engine.device)
        extras = replace(extras, display=Display(codec["name"], decode))
    if config.sampler is not None:
        check_use(command, "sampler", "flow")
        facts_of("sampler", config.sampler, "latent_sampler", parent)
        sampler = load_export(LatentSampler, RunFolder(Path(config.sampler)).export, "a latent sampler")
        extras = replace(extras, sampler=for_pictures(sampler, engine))
    if config.flow is not None:
        check_use(command, "flow", "latent_sampler")
        facts = facts_of("flow", config.flow, "flow", parent)
        velocity = load_export(VelocityModel, RunFolder(Path(config.flow)).export, "a flow")
        extras = replace(extras, velocity=for_pictures(velocity, engine), width=recorded_width(facts))
    return extras


def check_use(command: TrainCommand, option: str, place: Place) -> None:
    """Reject a named run that pictures of this stage do not use."""
    kind = stage_kind(command.stage.name)
    if kind.place != place or command.prior == "gaussian":
        raise UserError(
            f"train.pictures.{option} is for {stages_in(place)} with a learned prior, and this is "
            f"stage={command.stage.name} prior={command.prior}; leave it out"
        )


def facts_of(option: str, path: str, place: Place, parent_sha256: str | None) -> dict[str, Any]:
    """The facts of a named run's export; UserError if there is none, or it is of another stage or parent."""
    asked, folder = f"train.pictures.{option}={path}", RunFolder(Path(path))
    require_export(folder, f"the {option} of the pictures", f"python -m lediflow.train stage={place} ...")
    facts = facts_at(folder, asked, place)
    found = (facts.get("parent") or {}).get("sha256")
    if found is None or found != parent_sha256:
        raise UserError(
            f"{asked} was trained on the auxiliary model {shown_hash(found)}, this run on {shown_hash(parent_sha256)}; "
            "give a run of the same parent, or leave the option out"
        )
    return facts
