"""Options of `python -m lediflow.edit`: one dataclass per command; the schema adds the default folders (`paths`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from lediflow.ranges import LARGEST_SEED, bounded
from lediflow.sampling import SamplingOptions
from lediflow.sampling.options import AUTO

SPACES = ("w", "z")
PATHS = ("linear", "spherical")
KEPT = ("z", "x")
SOURCES_OF_Z = ("image", "masked", "sampler")
FITS = ("exact", "centre")
SOURCES_OF_X = ("image", "prior")
ESTIMATORS = ("means", "probe")
FEWEST_CORNERS = 3
ADAPTIVE_SOLVER = "dopri5"
MOST_PICTURES = 10_000  # of one edit, because their files are held in memory until all are made


@dataclass(kw_only=True)
class EditOptions(SamplingOptions):
    """What all editing commands have."""

    run: str = MISSING  # run folder of a flow with a learned prior
    sampler: str | None = None  # run folder of its latent sampler
    output: str = MISSING  # folder for 000000.png ... and edit.json
    # write the origin of every picture (hashes of the models, seed, settings) into its file; also --no-metadata
    metadata: bool = True
    # warn if an image that is mapped to noise and back is off by more than this share of its norm
    round_trip_warning: float = bounded(0.05, above=0)


@dataclass(kw_only=True)
class InterpolateConfig(EditOptions):
    """Frames between two images, or two seeds."""

    images: list[str] = field(default_factory=list)  # the two pictures; or leave them out and give seeds
    # two seeds: each stands for the first image that lediflow.sample makes with it, up to the noise of x
    seeds: list[int] = bounded(default_factory=list, at_least=0, at_most=LARGEST_SEED)
    # w: through the noise of the latent sampler, as in the paper | z: straight between the latents
    space: str = "w"
    path: str = "linear"  # linear | spherical (of w only: keeps the norm of the noise)
    frames: int = bounded(9, at_least=2, at_most=1000)  # number of pictures, with both ends
    frame_seconds: float = bounded(0.1, at_least=0.02, at_most=60)  # duration of a frame in strip.gif
    # solver of the latent sampler, in both directions: dopri5 returns to the same z, fixed steps only nearly
    latent_solver: str = "dopri5"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("space", self.space, SPACES)
        check_choice("path", self.path, PATHS)
        if self.path == "spherical" and self.space == "z":
            raise ValueError(
                "path=spherical in space=z: latents have no common norm that it could keep; use space=w, or path=linear"
            )
        if bool(self.images) == bool(self.seeds):
            found = "both" if self.images else "neither"
            raise ValueError(f"give two pictures, images=[A,B], or two seeds, seeds=[0,1]; found {found}")
        ends = self.images or self.seeds
        if len(ends) != 2:
            name = "images" if self.images else "seeds"
            raise ValueError(
                f"{name} has {len(ends)} entries; frames are made between two: {name}=[FIRST,LAST]"
            )
        check_integrated(self.steps)


@dataclass(kw_only=True)
class VaryConfig(EditOptions):
    """Other versions of an image."""

    image: str = MISSING  # the picture
    # what stays. z: what the encoder sees; x is drawn anew | x: where the flow starts; z is drawn anew
    keep: str = "z"
    # how much of what is drawn anew is new. 1: all of it; below: mixed with the photograph's own, which 0 returns
    strength: float = bounded(1.0, at_least=0, at_most=1)
    count: int = bounded(8, at_least=1, at_most=MOST_PICTURES)  # number of pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("keep", self.keep, KEPT)
        check_integrated(self.steps)
        if self.keep == "x":
            self.latent_solver = returning_solver(self.latent_solver, self.strength)


@dataclass(kw_only=True)
class InpaintConfig(EditOptions):
    """New pixels inside a mask; give one of mask, masks, rectangle and polygon."""

    image: str | None = None  # the picture
    # or several pictures, or folders of them: each is repainted as if it was given alone
    images: list[str] = field(default_factory=list)
    # exact: pixels stay as they are, so the picture must have the models' size | centre: the central square of picture
    # and mask, scaled to the models' size
    fit: str = "exact"
    # a picture of the image's size. White: repaint; black: keep; grey: in part. Or a picture with an alpha channel
    mask: str | None = None
    # instead of a mask: one for each of images, in their order; or a folder of masks with the names of the images
    masks: list[str] = field(default_factory=list)
    # instead of a mask: left, top, right, bottom in pixels of the image; right and bottom are not included
    rectangle: list[int] = bounded(default_factory=list, at_least=0)
    # instead of a mask: its corners x1,y1,x2,y2,...
    polygon: list[int] = bounded(default_factory=list, at_least=0)
    # softens the border of the mask: standard deviation in pixels; what is within reach changes in part
    blur: float = bounded(0.0, at_least=0, at_most=1000)
    # where z is from. image: the whole image, z has seen what is hidden | masked: what is visible of it | sampler:
    # drawn anew for each picture
    z_from: str = "masked"
    # how much of what is drawn anew is new. 1: all of it; below: mixed with the photograph's own noise, which has seen
    # what is hidden; 0 nearly returns the photograph
    strength: float = bounded(1.0, at_least=0, at_most=1)
    # models of latents: pixels outside of the mask are the photograph's own; false: the codec's version of them
    paste: bool = True
    count: int = bounded(4, at_least=1, at_most=MOST_PICTURES)  # number of results for each picture

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("z_from", self.z_from, SOURCES_OF_Z)
        check_choice("fit", self.fit, FITS)
        check_integrated(self.steps)
        if self.z_from == "sampler":
            self.latent_solver = returning_solver(self.latent_solver, self.strength)
        if bool(self.image) == bool(self.images):
            found = "both" if self.image else "neither"
            raise ValueError(f"give image=FILE, or images=[FILE,...] or images=[FOLDER]; found {found}")
        given = [name for name in ("mask", "masks", "rectangle", "polygon") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"{name}=" for name in given) or "none of them"
            raise ValueError(
                "give one of mask=FILE, masks=[FILE,...], rectangle=[left,top,right,bottom] and polygon=[x1,y1,...]; "
                f"found {found}"
            )
        if self.masks and self.image:
            raise ValueError("masks= belong to images=[FILE,...]; give mask=FILE with image=FILE")
        if self.rectangle and len(self.rectangle) != 4:
            raise ValueError(f"rectangle={self.rectangle}: give four numbers, [left,top,right,bottom]")
        if self.polygon and (len(self.polygon) % 2 or len(self.polygon) < 2 * FEWEST_CORNERS):
            raise ValueError(
                f"polygon={self.polygon}: give x and y of three corners or more, [x1,y1,x2,y2,x3,y3,...]"
            )


@dataclass(kw_only=True)
class AttributeConfig(EditOptions):
    """A photograph along a direction from pictures without an attribute to pictures with it."""

    image: str = MISSING  # the picture
    # folder or archive of pictures that have the attribute; also written with=
    with_images: str | None = None
    # of pictures that lack it, and differ in nothing else; also written without=
    without_images: str | None = None
    # instead of the two: direction.safetensors of an earlier edit with the same models
    direction: str | None = None
    # w: the noise of the latent sampler | z: the latents | auto: w, or that of the file direction=
    space: str = AUTO
    # means: the difference of the sets' means | probe: of a linear classifier | auto: means, or that of the file
    estimator: str = AUTO
    # how far, in standard deviations of the pictures of one set along the direction; one picture each
    strengths: list[float] = bounded(
        default_factory=lambda: [-2.0, -1.0, 0.0, 1.0, 2.0], at_least=-100, at_most=100, is_filled=True
    )
    # where the flow starts. image: x with the photograph's own noise, strength 0 returns it | prior: a draw
    x_from: str = "image"
    # solver of the latent sampler, in both directions: dopri5 returns to the same z, fixed steps only nearly
    latent_solver: str = "dopri5"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("space", self.space, (AUTO, *SPACES))
        check_choice("estimator", self.estimator, (AUTO, *ESTIMATORS))
        check_choice("x_from", self.x_from, SOURCES_OF_X)
        check_integrated(self.steps)
        sets = [name for name in ("with", "without") if getattr(self, f"{name}_images")]
        if self.direction is not None and sets:
            raise ValueError(
                f"direction= and {sets[0]}= are both given; give two sets to make a direction, or the file of one"
            )
        if self.direction is None and len(sets) < 2:
            found = f"found only {sets[0]}=" if sets else "found none of them"
            raise ValueError(
                f"give with=DIR and without=DIR, pictures that have the attribute and pictures that lack it, or "
                f"direction=FILE; {found}"
            )


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """ValueError for a value that is not among the known ones."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(known)}")


def returning_solver(solver: str, strength: float) -> str:
    """The latent sampler's solver: `auto` is dopri5 below strength 1, where it must return to the z that it is from."""
    return ADAPTIVE_SOLVER if solver == AUTO and strength < 1 else solver


def check_integrated(steps: int) -> None:
    """ValueError for steps=0, which leaves draws of the prior: nothing to edit with."""
    if steps == 0:
        raise ValueError("steps=0 leaves draws of the prior, without the flow; give 1 or more")
