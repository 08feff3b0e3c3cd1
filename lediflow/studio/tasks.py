"""The functions behind the page: settings in, files of pictures with their provenance and a sentence out.

They give what the commands give: image i of `sample` has the pixels of `lediflow.sample` with these settings, and the
edits are those of `lediflow.edit`. Known pixels of a photograph are always read from the uploaded file. Results depend
on the arguments alone, and one call at a time uses the models, so pages that are open at once do not affect each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from lediflow.editing.codec_space import data_of
from lediflow.editing.config import ADAPTIVE_SOLVER, KEPT, SOURCES_OF_Z, check_choice, check_integrated
from lediflow.editing.folder import EditFolder, as_image
from lediflow.editing.inpainting import inpaint, prepared
from lediflow.editing.interpolation import Ends, frame_labels, frames_along, noise_of_seeds
from lediflow.editing.inversion import Inverted, encoded, latents_to_noise, noise_to_latents
from lediflow.editing.masks import mask_of
from lediflow.editing.photographs import Picture, centred, exact
from lediflow.editing.strength import own_of
from lediflow.editing.variation import parts_of, varied
from lediflow.errors import UserError
from lediflow.sampling.classes import Label
from lediflow.sampling.methods import is_flow_map
from lediflow.sampling.options import SamplingConfig, batches
from lediflow.sampling.pictures import picture_arrays
from lediflow.studio.models import FLOW_MAP, Models
from lediflow.studio.strokes import NothingGivenError, painted_mask

ROUND_TRIP = 0.05  # as in lediflow.edit: a larger relative error is mentioned
FRAME_SECONDS = 0.1
KEPT_FOLDERS = 100  # of results
SHOWN = ("seed", "solver", "steps", "temperature")  # settings that the command of `sample` names
STRIP, ANIMATION, PHOTOGRAPH = "strip.png", "strip.gif", "photograph.png"
# settings that pictures depend on
RECORDED = [field.name for field in dataclasses.fields(SamplingConfig)]
CROP = "Crop and scale the photograph first"  # the option of the page that is fit=centre of the command
LEAK = "z_from=image: z has seen what the mask hides, and it may return; to remove an object use masked or sampler."
INSTEAD_OF_STROKES = "The uploaded mask is used; what was painted is not."


class Sliders(NamedTuple):
    """The settings that every tab has."""

    seed: float
    steps: float
    solver: str
    temperature: float
    classes: Sequence[Label] = ()  # as in `labels`; none: no class


class Made(NamedTuple):
    """Files of pictures, a sentence about them, and warnings."""

    files: list[Path]
    text: str
    warnings: list[str] = []  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Studio:
    """The tasks with one set of models; pictures are written below `folder`."""

    models: Models
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    written_folders: deque[Path] = field(default_factory=deque)
    # the last photographs that were mapped to noise, since frames are made anew for every change of a slider
    last_inverted: dict[Hashable, Inverted] = field(default_factory=dict)

    def sample(self, sliders: Sliders, count: float) -> Made:
        """New pictures: the first `count` of `lediflow.sample` with these settings."""
        with self.timed() as seconds:
            config = self.config(sliders)
            numbers = batches(int(count), self.models.command.batch_size)
            made = [self.models.pipeline(part, config) for part in numbers]
        arrays = np.concatenate([picture_arrays(one.images) for one in made])
        files = self.write("sample", config, {}, arrays)
        text = f"{counted(len(files))}, {made[0].nfe} evaluations of the flow each, {seconds()}."
        command = self.sample_command(config, len(files))
        return Made(files, f"{text} The same from a terminal:\n```bash\n{command}\n```")

    def sample_command(self, config: SamplingConfig, count: int) -> str:
        """The command that writes the same pictures."""
        command = self.models.command
        places = {"run": command.run, "sampler": command.sampler, "output": "DIR"}
        default = SamplingConfig()
        values = {"count": count, **{name: getattr(config, name) for name in SHOWN}}
        more = {"labels": self.models.labels_text(config.labels), "guidance": config.guidance}
        more |= {"latent_guidance": config.latent_guidance}
        values |= {name: value for name, value in more.items() if value not in ("[]", getattr(default, name))}
        options = {name: place for name, place in places.items() if place} | values
        words = [f"{name}={value}" for name, value in options.items()]
        return shlex.join(["python", "-m", "lediflow.sample", *words])

    def interpolate(
        self,
        sliders: Sliders,
        seeds: Sequence[float],
        photographs: Sequence[str | None],
        way: str,
        frames: float,
    ) -> Made:
        """A strip and an animation between two photographs, or between two seeds if no photographs are given."""
        with self.timed() as seconds:
            # only photographs are mapped to noise, from where fixed steps return to nearly the same z
            config = self.config(sliders, **({"latent_solver": ADAPTIVE_SOLVER} if photographs else {}))
            check_integrated(config.steps)
            warnings: list[str] = []
            if photographs:
                ends, about, warnings = self.ends_of_photographs(photographs, config)
            else:
                w = noise_of_seeds(self.models.pipeline, [int(seed) for seed in seeds])
                method = config.latent_method(is_flow_map=False)
                ends = Ends(w, noise_to_latents(self.models.pipeline, w, method))
                about = [{"seed": int(seed)} for seed in seeds]
            made = frames_along(
                self.models.pipeline, ends, way, int(frames), config, self.models.command.batch_size
            )
        origin = {"ends": about, "way": way, "frames": int(frames)}
        columns = frame_labels(about, int(frames))
        files = self.write("interpolate", config, origin, picture_arrays(made.images), strip_columns=columns)
        middle = {name: made.numbers[name][int(frames) // 2] for name in ("w_nll", "prior_nll")}
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in middle.items())
        text = (
            f"The frame in the middle: {numbers} nats per dimension (the lower, the likelier); {seconds()}."
        )
        return Made(files, text, warnings)

    def ends_of_photographs(
        self, photographs: Sequence[str | None], config: SamplingConfig
    ) -> tuple[Ends, list[dict[str, Any]], list[str]]:
        """Latents and noise of two photographs, their hashes, and warnings about the way to noise and back."""
        pictures = [self.centred(path, name) for path, name in zip(photographs, ("A", "B"), strict=True)]
        pipeline, method = self.models.pipeline, config.latent_method(is_flow_map=False)
        z = encoded(pipeline, data_of(pipeline, torch.cat([picture.signal for picture in pictures])))
        key = (method, *(picture.sha256 for picture in pictures))
        if key not in self.last_inverted:
            self.last_inverted.clear()
            self.last_inverted[key] = latents_to_noise(pipeline, z, method)
        back = self.last_inverted[key]
        about = [
            {"sha256": picture.sha256, "round_trip": back.record(place)}
            for place, picture in enumerate(pictures)
        ]
        return Ends(back.noise, z), about, warnings_of(back, [f"photograph {name}" for name in ("A", "B")])

    def inpaint(
        self,
        sliders: Sliders,
        photograph: str | None,
        is_cropped: bool,
        strokes: Mapping[str, Any] | None,
        mask_file: str | None,
        blur: float,
        z_from: str,
        count: float,
    ) -> Made:
        """New pixels where the mask is white; an uploaded mask comes before what was painted."""
        with self.timed() as seconds:
            config = self.config(sliders)
            check_integrated(config.steps)
            check_choice("z_from", z_from, SOURCES_OF_Z)
            picture = self.centred(photograph) if is_cropped else self.exact(photograph)
            if mask_file is None:
                mask = painted_mask(strokes, self.models.size, blur)
            else:
                with named_as_uploaded(mask_file):
                    mask = mask_of(picture.source_size, file=mask_file, blur=blur, side=self.models.size)
            numbers = batches(int(count), self.models.command.batch_size)
            task = prepared(self.models.pipeline, picture.pixels, mask.amount, config, z_from)
            made = [inpaint(self.models.pipeline, task, part, config) for part in numbers]
        arrays = np.concatenate([one.pixels.permute(0, 2, 3, 1).cpu().numpy() for one in made])
        origin = {"image": {"sha256": picture.sha256}, "mask": mask.record(), "z_from": z_from}
        files = self.write("inpaint", config, origin, arrays)
        text = (
            f"{counted(len(files))}; the mask ({mask.origin}) repaints {mask.is_repainted.sum():,} of "
            f"{self.models.size**2:,} pixels, all others have the photograph's bytes; {seconds()}."
        )
        warnings = [LEAK] if z_from == "image" else []
        if mask_file is not None and strokes is not None and any(np.any(one) for one in strokes["layers"]):
            warnings.append(INSTEAD_OF_STROKES)
        return Made(files, text, warnings)

    def vary(self, sliders: Sliders, photograph: str | None, keep: str, count: float) -> Made:
        """The photograph as the models see it, then other versions with its z or from its x."""
        with self.timed() as seconds:
            config = self.config(sliders)
            check_integrated(config.steps)
            check_choice("keep", keep, KEPT)
            pipeline = self.models.pipeline
            if keep == "x" and is_flow_map(pipeline.velocity):
                raise UserError(FLOW_MAP.format(option="run", run=self.models.command.run))
            picture = self.centred(photograph)
            origin: dict[str, Any] = {"image": {"sha256": picture.sha256}, "keep": keep}
            ids = torch.arange(int(count), device=pipeline.device)
            own = own_of(pipeline, data_of(pipeline, picture.signal), config, parts_of(keep, 1.0))
            if own.inverted:
                origin["image"]["round_trip"] = own.round_trips()
            made = varied(pipeline, own, ids, config, keep=keep, strength=1.0)
        arrays = picture_arrays(made.images)
        files = self.write("vary", config, origin, arrays, photograph=picture_arrays(picture.signal)[0])
        text = f"The photograph, and {counted(len(arrays))} that keep {keep}; {seconds()}."
        return Made(files, text, own.warnings("photograph", ROUND_TRIP))

    def shown(self, photograph: str | None, is_cropped: bool) -> UInt8[np.ndarray, "height width channels"]:
        """The photograph that would be inpainted, as bytes of the models' size."""
        picture = self.centred(photograph) if is_cropped else self.exact(photograph)
        return picture.pixels.permute(1, 2, 0).numpy()

    def config(self, sliders: Sliders, **more: Any) -> SamplingConfig:
        """The settings of the sliders, checked; the other ones are those of the command line."""
        given = {name: getattr(self.models.command, name) for name in RECORDED}
        chosen: dict[str, Any] = {"seed": int(sliders.seed), "steps": int(sliders.steps)}
        chosen |= {"solver": sliders.solver, "temperature": float(sliders.temperature)}
        chosen["labels"] = list(sliders.classes)
        return self.models.pipeline.resolved(SamplingConfig(**{**given, **chosen, **more}))

    def centred(self, path: str | None, name: str = "") -> Picture:
        """The central square of an uploaded photograph, in the models' size."""
        with named_as_uploaded(path) as found:
            return centred(found, f"photograph {name}".strip(), self.models.size, self.models.channels)

    def exact(self, path: str | None) -> Picture:
        """An uploaded photograph whose pixels are used unchanged."""
        try:
            with named_as_uploaded(path) as found:
                return exact(found, "photograph", self.models.size, self.models.channels)
        except UserError as error:
            raise UserError(str(error).replace("give fit=centre", f'set "{CROP}"')) from error

    def write(
        self,
        name: str,
        config: SamplingConfig,
        about: Mapping[str, Any],
        arrays: UInt8[np.ndarray, "batch height width channels"],
        *,
        strip_columns: Sequence[str] = (),
        photograph: UInt8[np.ndarray, "height width channels"] | None = None,
    ) -> list[Path]:
        """Write pictures, or their strip and animation, into a folder of their own; each carries its provenance."""
        settings = dataclasses.asdict(config)
        origin = {
            "command": f"lediflow.studio {name}",
            "settings": {**settings, "precision": self.models.pipeline.runtime.precision},
            "weights": self.models.weights,
            **about,
        }
        root = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        self.written_folders.append(root)
        if len(self.written_folders) > KEPT_FOLDERS:  # pages have copies of their own
            shutil.rmtree(self.written_folders.popleft(), ignore_errors=True)
        made = EditFolder(root, origin if self.models.command.metadata else None)
        if photograph is not None:
            made.add_picture(PHOTOGRAPH, as_image(photograph))
        if strip_columns:
            made.add_strip(STRIP, arrays, strip_columns, about["way"])
            made.add_animation(ANIMATION, arrays, FRAME_SECONDS)
        else:
            made.add_numbered(arrays)
        digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:6]
        files = []
        for file, content in made.files.items():
            files.append(root / f"{name}-seed{config.seed}-{digest}-{file}")
            files[-1].write_bytes(content)
        return files

    @contextmanager
    def timed(self) -> Iterator[Callable[[], str]]:
        """Around the use of the models, one task at a time; the function returns the seconds as text."""
        with self.lock:
            started = time.perf_counter()
            ended = [started]
            yield lambda: f"{ended[0] - started:.2f} s"
            ended[0] = time.perf_counter()


@contextmanager
def named_as_uploaded(path: str | None) -> Iterator[str]:
    """The path of an upload; messages name the file as its user does. UserError if nothing was uploaded."""
    if path is None:
        raise NothingGivenError("no photograph was uploaded; choose a file first")
    try:
        yield path
    except UserError as error:
        raise UserError(str(error).replace(path, Path(path).name)) from error


def warnings_of(back: Inverted, names: list[str]) -> list[str]:
    """A sentence for each photograph that comes back from noise with a large error."""
    return back.warnings(names, ROUND_TRIP)


def counted(count: int) -> str:
    """A number of pictures as text."""
    return "1 picture" if count == 1 else f"{count} pictures"
