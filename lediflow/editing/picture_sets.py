"""Two sets of pictures that differ in an attribute, each divided into a half to fit on and a half to test on.

Pictures are identified by their content, the bytes after cropping and scaling: a picture that a set holds twice is used
once, one that both sets hold is refused. A set is sorted by the SHA-256 of these bytes, and the first half of the order
is fitted on. So the halves depend neither on the names of the files nor on their order, and a further picture moves at
most one other to the other half.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lediflow.data.photograph import Photograph, centre_square, decoded_photograph
from lediflow.data.pixels import UnusableImageError
from lediflow.data.sources.listing import list_images
from lediflow.data.sources.opening import open_source
from lediflow.data.sources.protocol import SourceError
from lediflow.editing.photographs import MODES, as_pixels
from lediflow.errors import UserError

FEWEST = 4  # pictures of a set in each half
NAMES_SHOWN = 3
THUMBNAIL = 16  # side of the pictures that are compared to find near-identical ones
# near-identical: thumbnails that differ by at most this many levels of 255, root mean square
NEAR_LEVELS = 1.0

Pixels = UInt8[Tensor, "pictures channels height width"]


class PictureSet(NamedTuple):
    """Distinct pictures of the models' size, sorted by `hashes`."""

    option: str  # that named it, for messages
    pixels: Pixels
    hashes: list[str]  # SHA-256 of the bytes of each picture
    names: list[str]  # the file of each picture, inside the set
    repeated: int  # files that hold a picture that another file of the set holds
    unusable: list[dict[str, str]]  # file and reason

    @property
    def fitted(self) -> int:
        """How many pictures, from the first, are fitted on; the others are tested on."""
        return (len(self.hashes) + 1) // 2

    def record(self) -> dict[str, Any]:
        """For edit.json and pictures: no names of files."""
        digest = hashlib.sha256("".join(self.hashes).encode()).hexdigest()
        return {
            "sha256": digest,
            "fitted": self.fitted,
            "tested": len(self.hashes) - self.fitted,
            "repeated": self.repeated,
            "unusable": len(self.unusable),
        }


def read_set(path: str, option: str, size: int, channels: int) -> PictureSet:
    """The pictures of a folder or archive, their central squares scaled to `size`.

    UserError if it has none, or fewer than FEWEST usable ones for each half; damaged files are listed, not refused.
    """
    named = (
        (name, partial(decoded_photograph, content, size)) for name, content in contents_of(path, option)
    )
    return collected(named, option, f"{option}={path}", size, channels)


def set_of_pictures(images: Sequence[Image.Image], option: str, size: int, channels: int) -> PictureSet:
    """The same of pictures in memory, named by their numbers."""
    named = ((str(place), partial(Photograph, image, *image.size)) for place, image in enumerate(images))
    return collected(named, option, option, size, channels)


def collected(
    named: Iterable[tuple[str, Callable[[], Photograph]]], option: str, where: str, size: int, channels: int
) -> PictureSet:
    """The set of photographs that are decoded one by one."""
    found: dict[str, tuple[str, UInt8[Tensor, "channels height width"]]] = {}
    repeated, unusable = 0, []
    for name, decoded in named:
        try:
            square = centre_square(decoded(), size=size, mode=MODES[channels])
        except UnusableImageError as error:
            unusable.append({"file": name, "reason": str(error)})
            continue
        pixels = as_pixels(square)
        digest = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        repeated += digest in found
        found.setdefault(digest, (name, pixels))
    if len(found) < 2 * FEWEST:
        bad = "".join(f"; {one['file']} is {one['reason']}" for one in unusable[:NAMES_SHOWN])
        raise UserError(
            f"{where} has {len(found)} different usable pictures ({repeated} repeated, {len(unusable)} unusable"
            f"{bad}); give {2 * FEWEST} or more, since one half fits the direction and the other tests it"
        )
    return set_of(option, found, repeated, unusable)


def set_of(
    option: str,
    found: dict[str, tuple[str, UInt8[Tensor, "channels height width"]]],
    repeated: int,
    unusable: list[dict[str, str]],
) -> PictureSet:
    """The set of pictures given by hash, in the order of the hashes."""
    hashes = sorted(found)
    pixels = torch.stack([found[digest][1] for digest in hashes])
    return PictureSet(option, pixels, hashes, [found[digest][0] for digest in hashes], repeated, unusable)


def contents_of(path: str, option: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture file; a file that cannot be read has no content, so that it is passed over."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            source = open_source(Path(path)).ready(Path(scratch))
            images = list_images(source).images
        except SourceError as error:
            named = f"{option}={path}"
            text = str(error).replace(f"source={path}", named, 1)
            raise UserError(text if named in text else f"{named}: {text}") from error
        for image in images:
            try:
                content = source.read(image)
            except OSError:
                content = b""
            yield image.name, content


def refuse_overlap(having: PictureSet, lacking: PictureSet) -> None:
    """UserError for pictures that are in both sets."""
    names = dict(zip(lacking.hashes, lacking.names, strict=True))
    both = [
        f"{name} is {names[digest]}"
        for digest, name in zip(having.hashes, having.names, strict=True)
        if digest in names
    ]
    if both:
        shown = ", ".join([*both[:NAMES_SHOWN], *(["..."] if len(both) > NAMES_SHOWN else [])])
        raise UserError(
            f"{having.option} and {lacking.option} have {len(both)} pictures in common ({shown}): a picture either "
            "has the attribute or lacks it; leave them out of one set"
        )


def near_duplicates(having: PictureSet, lacking: PictureSet) -> int:
    """How many pictures to be tested on are near-identical to one that is fitted on; they make the test too easy."""
    sets = [(thumbnails(one.pixels), one.fitted) for one in (having, lacking)]
    fitted = torch.cat([pictures[:count] for pictures, count in sets])
    tested = torch.cat([pictures[count:] for pictures, count in sets])
    nearest = torch.stack([torch.cdist(part, fitted).amin() for part in tested.split(1)])
    return int((nearest / fitted.shape[1] ** 0.5 <= NEAR_LEVELS).sum())


def thumbnails(pixels: Pixels) -> Float[Tensor, "pictures values"]:
    """Small versions of pictures, in levels of 255; smaller pictures are taken as they are."""
    side = min(THUMBNAIL, pixels.shape[-1])
    return torch.cat([adaptive_avg_pool2d(part.float(), side) for part in pixels.split(256)]).flatten(1)
