"""The photographs of an inpainting, each with its mask: one of each, or lists and folders of them.

A folder stands for the pictures directly in it, sorted by name. Masks in one folder belong to the photographs with
their names, whatever the extension; listed masks belong to the photographs in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from lediflow.data.sources.names import is_picture_name
from lediflow.editing.config import MOST_PICTURES, InpaintConfig
from lediflow.editing.masks import Mask, mask_of
from lediflow.editing.photographs import READERS, Picture
from lediflow.errors import UserError

HIDDEN = torch.tensor(128)  # the level of hidden pixels in strip.png


class Files(NamedTuple):
    """The file of a photograph and that of its mask; None: the mask is a shape."""

    image: str
    mask: str | None


class Pair(NamedTuple):
    """A photograph and its mask, both of the models' size."""

    picture: Picture
    mask: Mask

    def record(self) -> dict[str, Any]:
        """For edit.json and the pictures: hashes, and how the mask was made."""
        return {"image": {"sha256": self.picture.sha256}, "mask": self.mask.record()}

    @property
    def shown(self) -> UInt8[Tensor, "2 channels height width"]:
        """The photograph, and the same with what the mask touches in grey."""
        known = torch.where(self.mask.amount[0] == 0, self.picture.pixels, HIDDEN).to(torch.uint8)
        return torch.stack([self.picture.pixels, known])


def paired_files(options: InpaintConfig) -> list[Files]:
    """Each photograph's file with its mask's. UserError if their numbers or names do not fit, or there are too many."""
    if options.image is not None:
        return [Files(options.image, options.mask)]
    images = listed(options.images, "images")
    if len(images) * options.count > MOST_PICTURES:
        raise UserError(
            f"images= are {len(images)} pictures, which with count={options.count} gives more than {MOST_PICTURES:,} "
            "results, all of which are held in memory; lower count, or give fewer at a time"
        )
    if not options.masks:
        return [Files(image, options.mask) for image in images]
    if len(options.masks) == 1 and Path(options.masks[0]).is_dir():
        return [Files(image, mask_named(image, options.masks[0])) for image in images]
    masks = listed(options.masks, "masks")
    if len(masks) != len(images):
        raise UserError(
            f"masks= are {len(masks)}, images= {len(images)}; give a mask for each image in the same order, "
            "masks=[DIR] with masks that have the images' names, or mask=FILE for all"
        )
    return [Files(image, mask) for image, mask in zip(images, masks, strict=True)]


def listed(entries: Sequence[str], option: str) -> list[str]:
    """The files, with folders replaced by the pictures in them; UserError for a folder without any."""
    files = []
    for entry in entries:
        found = pictures_in(entry) if Path(entry).is_dir() else [entry]
        if not found:
            raise UserError(f"{option}={entry} is a folder without pictures; give one with PNG or JPEG files")
        files += found
    return files


def pictures_in(folder: str) -> list[str]:
    return sorted(
        str(path) for path in Path(folder).iterdir() if path.is_file() and is_picture_name(path.name)
    )


def mask_named(image: str, folder: str) -> str:
    """The mask in the folder that has the image's name; UserError if there is none, or several."""
    name = Path(image).stem
    found = [path for path in pictures_in(folder) if Path(path).stem == name]
    if len(found) != 1:
        has = "none" if not found else " and ".join(Path(path).name for path in found)
        raise UserError(f"masks={folder}: for {Path(image).name} it has {has}; give one mask, {name}.png")
    return found[0]


def read_pairs(options: InpaintConfig, files: Sequence[Files], size: int, channels: int) -> list[Pair]:
    """Photographs and masks in the models' size; UserError for the first that is unusable."""
    option = "image" if options.image is not None else "images"
    pairs = []
    for image, file in files:
        picture = READERS[options.fit](image, option, size, channels)
        mask = mask_of(
            picture.source_size,
            file=file,
            rectangle=options.rectangle,
            polygon=options.polygon,
            blur=options.blur,
            side=size,
        )
        pairs.append(Pair(picture, mask))
    return pairs
