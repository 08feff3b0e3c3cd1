"""The pictures of a run: made at milestones, kept as files, recorded as events.

All ranks agree at a milestone on whether pictures are made, and put the averaged weights together (with ZeRO they are
spread over the ranks). From there rank 0 works alone, on a copy of the model that is neither compiled nor sharded, so
that the other ranks neither make calls for it nor compile anything again; they go on and meet rank 0 in the next step.
A picture that fails is left out, and its first failure is logged.

Files are `pictures/<images seen, 12 digits>/<name>.png` in the run folder: 8-bit PNG, whole or absent, with the caption
as its description. The event `pictures` has each file with its SHA-256 and caption, the seconds that training stood
still, and the share of the training time that pictures took so far.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lediflow.disk import whole_or_absent
from lediflow.engine.precision import frozen_in
from lediflow.engine.protocol import Engine, EngineConfig, M
from lediflow.models.export import Model, Spec, build_model
from lediflow.sampling.grids import labelled_grid
from lediflow.stages.protocol import Stage
from lediflow.tracking.event_log import PICTURES
from lediflow.tracking.tracker import Tracker
from lediflow.training.clock import Clock
from lediflow.training.pictures.drawings import Drawing, Scene, drawings
from lediflow.training.pictures.schedule import PicturesConfig, TimeLimit, is_due
from lediflow.training.validation import inference

log = logging.getLogger(__name__)


class SceneMaker(Protocol):
    """Makes the scene of a milestone from the averaged model of the run."""

    def __call__(self, model: Model, stage: Stage, images_seen: int) -> Scene: ...


@dataclass(frozen=True)
class PictureMaker:
    """How rank 0 makes the pictures of a run."""

    spec: Spec
    scene: SceneMaker
    # `pictures/` of the run
    folder: Path


@dataclass
class TrainingPictures:
    """The pictures of one run. Every rank makes the same calls."""

    engine: Engine
    tracker: Tracker
    config: PicturesConfig
    # images after which pictures that were put off are tried again
    retry_images: int
    maker: PictureMaker | None = None  # None: the run makes no pictures
    holds: Callable[[], bool] = lambda: True  # whether the run folder is still this process's
    limit: TimeLimit = field(init=False)
    are_put_off: bool = False
    said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.limit = TimeLimit(self.config.time_share)

    def are_due(self, clock: Clock, *, is_last: bool) -> bool:
        """Whether pictures are due at the end of this step; the same on every rank."""
        if self.maker is None or not self.config.every_images:
            return False
        self.limit.begin(clock.images_seen)
        is_retry = self.are_put_off and clock.is_due(self.retry_images)
        return is_last or is_retry or is_due(clock, self.config.every_images)

    def make(self, stage: Stage, images_seen: int, *, is_last: bool = False) -> float:
        """Make and record pictures, unless they would take too much time; the seconds that it took.

        Every rank must call it. At the end of a run nothing can be put off, so that is not logged.
        """
        assert self.maker is not None
        started = time.perf_counter()
        allows = self.limit.allows_pictures(images_seen) if self.engine.ranks.is_first else None
        self.are_put_off = not self.engine.group.broadcast(allows)
        if self.are_put_off:
            if not is_last:
                self._say_once(
                    "put off",
                    "no pictures at %d images: they would take more than %.3g %% of the training time so far "
                    "(train.pictures.time_share)",
                    images_seen,
                    100 * self.limit.share,
                )
            return time.perf_counter() - started
        weights = self.engine.averaged_weights()
        if weights is None:  # rank 0 goes on alone
            return time.perf_counter() - started
        made = self._make_and_write(self.maker, weights, stage, images_seen)
        if self.engine.device.type == "cuda":
            # pictures have other shapes than training: their cached blocks would fragment its memory
            torch.cuda.empty_cache()
        seconds = time.perf_counter() - started
        self.limit.note(seconds)
        self._record(made, images_seen, seconds)
        return seconds

    def _make_and_write(
        self, maker: PictureMaker, weights: Mapping[str, Tensor], stage: Stage, images_seen: int
    ) -> dict[str, dict[str, str]]:
        """Make and write all pictures; the values of the event, without those that failed."""
        made: dict[str, dict[str, str]] = {}
        folder = maker.folder / f"{images_seen:012d}"
        try:
            scene = maker.scene(self.averaged_model(maker.spec, weights), stage, images_seen)
            for name, draw in drawings(scene).items():
                try:
                    made[name] = self._write(draw, scene, folder / f"{name}.png")
                except Exception as error:
                    self._warn(name, images_seen, error)
        except Exception as error:
            self._warn("pictures", images_seen, error)
        if not made:
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()
        return made

    def averaged_model(self, spec: Spec, weights: Mapping[str, Tensor]) -> Model:
        """A model with these weights, as pictures are made with it.

        Weights that are there already, in float32, are not copied. Nothing is drawn: the model has no values of its own
        before.
        """
        with torch.device("meta"):
            model = build_model(spec, self.engine.config.attention_route)
        model.load_state_dict(weights, assign=True)
        return for_pictures(model, self.engine)

    def _write(self, draw: Callable[[], Drawing], scene: Scene, path: Path) -> dict[str, str]:
        # the frozen auxiliary model may be compiled, the others are not
        with inference(scene.chain.models[0]):
            drawing = draw()
        if not self.holds():
            raise OSError("another process holds the run folder")
        return {
            "file": f"{path.parent.parent.name}/{path.parent.name}/{path.name}",
            "sha256": write_picture(path, drawing),
            "caption": drawing.caption,
        }

    def _record(self, made: dict[str, dict[str, str]], images_seen: int, seconds: float) -> None:
        if not made:
            return
        share = self.limit.share_spent
        self.tracker.record(PICTURES, images_seen, pictures=made, seconds=seconds, share=share)
        log.info(
            "pictures at %d images: %s in %.1f s; pictures took %.2f %% of the training time so far",
            images_seen, ", ".join(made), seconds, 100 * share,
        )  # fmt: skip

    def _warn(self, name: str, images_seen: int, error: Exception) -> None:
        self._say_once(
            name,
            "the picture %s at %d images could not be made (%s: %s); training continues, and no further failure of it "
            "is reported",
            name, images_seen, type(error).__name__, error,
        )  # fmt: skip

    def _say_once(self, key: str, message: str, *values: object) -> None:
        if key not in self.said and self.engine.ranks.is_first:
            level = logging.INFO if key == "put off" else logging.WARNING
            log.log(level, message, *values)
        self.said.add(key)


def for_pictures(model: M, engine: Engine) -> M:
    """A frozen model on the engine's device, in float32 as in `lediflow.sample`, and not compiled.

    Compiling it for the few batches of a milestone would take longer than these.
    """
    return frozen_in(EngineConfig(precision="float32", compile=False), model, engine.device)


def write_picture(path: Path, drawing: Drawing) -> str:
    """Write a PNG file, whole or not at all; its SHA-256. UserError if it cannot be written.

    Training does not wait for the disk: after a loss of power the file may be empty, which its SHA-256 tells.
    """
    labels, rows = zip(*drawing.rows, strict=True)
    content, about = io.BytesIO(), PngInfo()
    about.add_itxt("Description", drawing.caption)
    labelled_grid(rows, labels).save(content, "PNG", pnginfo=about)
    with whole_or_absent(path, is_flushed=False) as stream:
        stream.write(content.getbuffer())
    return hashlib.sha256(content.getbuffer()).hexdigest()
