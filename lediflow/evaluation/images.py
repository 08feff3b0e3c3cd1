"""Images by number, wherever they come from: what is embedded and compared.

Image i is the same on any rank and in any batch, to the rounding of the arithmetic that makes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from lediflow.codecs import bytes_to_signal
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.pictures import picture_files

Images = Float[Tensor, "batch channels height width"]


class NumberedImages(Protocol):
    """`record` says what they are: two sets with equal records are equal."""

    record: dict[str, Any]

    def __len__(self) -> int: ...

    def __call__(self, numbers: range) -> Images:
        """Those images in [-1, 1]."""


class GeneratedImages:
    """Drawn by a pipeline with given settings; `models` says which models these are."""

    def __init__(
        self, pipeline: LeDiFlowPipeline, config: SamplingConfig, count: int, models: dict[str, Any]
    ) -> None:
        self.pipeline, self.config, self.count = pipeline, config, count
        names = [field.name for field in dataclasses.fields(SamplingConfig)]
        self.record = {"models": models, "sampling": {name: getattr(config, name) for name in names}}

    def __len__(self) -> int:
        return self.count

    def __call__(self, numbers: range) -> Images:
        return self.pipeline(numbers, self.config).images


class ShardImages:
    """Some samples of a set of shards; where these hold latents, `decode` makes images of them."""

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

    def __len__(self) -> int:
        return len(self.samples)

    @torch.no_grad()
    def __call__(self, numbers: range) -> Images:
        return self.decode(self.signals(numbers)).clamp(-1, 1)

    def signals(self, numbers: range) -> Images:
        """As models see them: not decoded."""
        chosen = self.samples[numbers.start : numbers.stop]
        return next(each_once(self.reader, chosen, len(chosen))).images.to(self.device)


class FolderImages:
    """The pictures of a folder in the order of their names: square, and all of one size."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, picture_files(folder)
        self.size = side_of(self.files[0])
        self.record = {"folder": hash_of_files(self.files), "image_size": self.size}

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, numbers: range) -> Images:
        arrays = [self.picture(path) for path in self.files[numbers.start : numbers.stop]]
        return bytes_to_signal(rearrange(torch.from_numpy(np.stack(arrays)), "b h w c -> b c h w"))

    def picture(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise UserError(
                f"{path} is not a picture that can be read ({error}); remove it, or make it again"
            ) from error
        if pixels.shape[:2] != (self.size, self.size):
            height, width = pixels.shape[:2]
            raise UserError(
                f"{path} is {width} x {height}, {self.files[0].name} is {self.size} x {self.size}: pictures of several "
                "sizes cannot be compared; bring all to one size with the same method"
            )
        return pixels


def side_of(path: Path) -> int:
    """Of a square picture; another one is refused."""
    with Image.open(path) as image:
        width, height = image.size
    if width != height:
        raise UserError(
            f"{path} is {width} x {height}: features are of square pictures; crop them first, both sets in the same way"
        )
    return width


def hash_of_files(files: list[Path]) -> str:
    """Of the names and the contents."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
