"""Numbered images from any source, to be embedded and compared.

Image i is the same on any rank and in any batch, up to the rounding of the arithmetic that generates it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lediflow.codecs import bytes_to_signal
from lediflow.data.photograph import PIXEL_RULE, holds_several, rgb_pixels
from lediflow.data.pixels import UnusableImageError
from lediflow.data.shards.reader import ShardReader
from lediflow.data.sources import Entry, Listing, Source, SourceError, list_images, open_source
from lediflow.data.sources.names import printable
from lediflow.data.sources.opening import reading_explained
from lediflow.data.streams.batch import each_once
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

Images = Float[Tensor, "batch channels height width"]
# files that lediflow.sample and lediflow.evaluate write into folders of pictures
FIRST_PICTURES = 16  # that show whether a folder is grey
OWN_RECORDS = ("samples.json", "results/results.json", "results/.lediflow.json")


class NumberedImages(Protocol):
    """Images by number. `record` identifies them: two sets with equal records are equal."""

    record: dict[str, Any]

    def __len__(self) -> int: ...

    def __call__(self, numbers: range) -> Images:
        """The images with these numbers, in [-1, 1]."""


class GeneratedImages:
    """Images that a pipeline generates with given settings; `models` identifies its models."""

    def __init__(
        self, pipeline: LeDiFlowPipeline, config: SamplingConfig, count: int, models: dict[str, Any]
    ) -> None:
        self.pipeline, self.config, self.count = pipeline, config, count
        self.record = {"models": models, "sampling": sampling_record(pipeline, config)}

    def __len__(self) -> int:
        return self.count

    def __call__(self, numbers: range) -> Images:
        return self.pipeline(numbers, self.config).images


def sampling_record(pipeline: LeDiFlowPipeline, config: SamplingConfig) -> dict[str, Any]:
    """What images depend on besides the models: settings, and the precision unless it is float32.

    Records from before there was a choice have no entry for it, and were made in float32.
    """
    precision = pipeline.runtime.precision
    names = [field.name for field in dataclasses.fields(SamplingConfig)]
    settings = {name: getattr(config, name) for name in names}
    return settings if precision == "float32" else settings | {"precision": precision}


class ShardImages:
    """Some samples of a set of shards; `decode` turns latents into images."""

    def __init__(
        self,
        reader: ShardReader,
        samples: Int64[np.ndarray, " samples"],
        decode: Callable[[Tensor], Tensor] = lambda images: images,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader, self.samples, self.decode, self.device = reader, samples, decode, device
        contents = reader.index.contents
        self.record = {
            "data": reader.index.fingerprint,
            "samples": hashlib.sha256(samples.tobytes()).hexdigest(),
            "codec": contents.codec,
            "image_size": contents.image_size,
        }
        if not reader.is_ours:  # pixels of foreign shards are made when they are read
            self.record["pixels"] = PIXEL_RULE

    def __len__(self) -> int:
        return len(self.samples)

    @torch.no_grad()
    def __call__(self, numbers: range) -> Images:
        return self.decode(self.signals(numbers)).clamp(-1, 1)

    def signals(self, numbers: range) -> Images:
        """The samples as models see them, not decoded."""
        return self._signals_of(self.samples[numbers.start : numbers.stop])

    def numbered(self, numbers: Sequence[int]) -> Images:
        """The signals with these numbers, in this order; numbers may repeat."""
        return self._signals_of(self.samples[np.array(numbers, dtype=np.int64)])

    def _signals_of(self, chosen: Int64[np.ndarray, " some"]) -> Images:
        return next(each_once(self.reader, chosen, len(chosen))).images.to(self.device)


class FolderImages:
    """The pictures below a folder (or in a .tar, .zip, ...) in the order of their names: square, and all of one size.

    Files are chosen and decoded as lediflow.prepare does. `option` is the name of the option that gave the path.
    UserError names a picture that cannot be read or has another size.
    """

    def __init__(self, folder: Path, option: str = "images") -> None:
        self.folder, self.option = folder, option
        self.source, listing = pictures_of(folder, option)
        self.entries, self.passed_over = listing.images, listing.passed_over
        self.size = self.side_of_first()
        self.sequences: list[str] = []  # names of files with several pictures; the first of each is used
        self.record = {"folder": self.hash_of_files(), "image_size": self.size, "pixels": PIXEL_RULE}

    def __len__(self) -> int:
        return len(self.entries)

    def __call__(self, numbers: range) -> Images:
        arrays = [self.picture(entry) for entry in self.entries[numbers.start : numbers.stop]]
        return bytes_to_signal(rearrange(torch.from_numpy(np.stack(arrays)), "b h w c -> b c h w"))

    def picture(self, entry: Entry) -> UInt8[np.ndarray, "height width 3"]:
        """One picture; UserError if its size is not that of the folder."""
        pixels = self.pixels(entry)
        if pixels.shape[:2] != (self.size, self.size):
            height, width = pixels.shape[:2]
            first = printable(self.entries[0].name)
            raise UserError(
                f"{self.place(entry)} is {width} x {height}, {first} is {self.size} x {self.size}: pictures of several "
                "sizes cannot be compared; bring all to one size with the same method"
            )
        return pixels

    def pixels(self, entry: Entry) -> UInt8[np.ndarray, "height width 3"]:
        try:
            return rgb_pixels(self.content(entry))
        except UnusableImageError as error:
            raise UserError(
                f"{self.place(entry)} is not a picture that can be read ({error}); remove it, or make it again"
            ) from error

    def content(self, entry: Entry) -> bytes:
        try:
            return self.source.read(entry)
        except OSError as error:
            raise UserError(
                f"{self.place(entry)} cannot be read ({error.strerror or error}); remove it, or make it readable"
            ) from error

    def place(self, entry: Entry) -> str:
        """A picture's place, for messages."""
        return f"{self.option}={self.folder}: {printable(entry.name)}"

    def side_of_first(self) -> int:
        """Side of the first picture in pixels; UserError if it is not square."""
        height, width, _ = self.pixels(self.entries[0]).shape
        if width != height:
            raise UserError(
                f"{self.place(self.entries[0])} is {width} x {height}: features are of square pictures; crop them "
                "first, both sets in the same way"
            )
        return width

    def is_grey(self) -> bool:
        """Whether the first pictures have three equal channels each."""
        first = (self.pixels(entry) for entry in self.entries[:FIRST_PICTURES])
        return all((pixels == pixels[..., :1]).all() for pixels in first)

    def hash_of_files(self) -> str:
        """SHA-256 of names and contents; also collects the files with several pictures."""
        total = hashlib.sha256()
        for entry in self.entries:
            content = self.content(entry)
            total.update(
                entry.name.encode(errors="surrogateescape") + b"\0" + hashlib.sha256(content).digest()
            )
            if holds_several(content):
                self.sequences.append(entry.name)
        return total.hexdigest()

    def account(self) -> dict[str, Any]:
        """Numbers of pictures used and skipped, for the results."""
        kinds = dict(self.passed_over.kinds)
        return {"images": len(self), "passed_over": kinds, "first_of_several": len(self.sequences)}

    def notes(self) -> list[str]:
        """Messages about pictures that were skipped or used in part; may be empty."""
        said, where = [], f"{self.option}={self.folder}"
        if self.passed_over:
            said.append(f"{where}: {len(self):,} pictures; skipped {self.passed_over}")
        if self.sequences:
            names = ", ".join(map(printable, self.sequences[:3])) + (
                ", ..." if len(self.sequences) > 3 else ""
            )
            said.append(
                f"{where}: of files that hold several pictures the first is taken: {len(self.sequences):,} ({names})"
            )
        return said


def pictures_of(path: Path, option: str) -> tuple[Source, Listing]:
    """Open the source at a path and list its pictures; UserError if it holds archives or no pictures."""
    try:
        opened = open_source(path)
        if not isinstance(opened, Source):
            raise UserError(
                f"{option}={path} holds archives; unpack them and give the folder of the pictures"
            )
        with reading_explained(path):
            return opened, list_images(opened, known=OWN_RECORDS)
    except SourceError as error:
        reason = str(error).removeprefix(f"source={path} ").replace("source=", f"{option}=")
        raise UserError(f"{option}={path}{' ' if reason != str(error) else ': '}{reason}") from error
