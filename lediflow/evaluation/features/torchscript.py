"""Features of any TorchScript module: images in, one vector each out. Metrics are named after the module's file."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.evaluation.features.clip import is_torchscript
from lediflow.evaluation.features.inputs import check_square, resize, rgb_pixels, standardise, weights_record

NAME = "torchscript"
DIGITS = 8  # of the file's hash, in the name


class TorchScriptFeatures:
    """The module's output for images resized to `size`, with pixels in 0 ... 1 standardised by `mean` and `std`."""

    def __init__(
        self,
        path: str | None,
        *,
        size: int = 224,
        mean: list[float],
        std: list[float],
        device: torch.device | str = "cpu",
    ):
        weights = check_module(path)
        self.device, self.size = torch.device(device), size
        self.mean, self.std = tuple(mean), tuple(std)
        self.network = torch.jit.load(weights, map_location=self.device).eval()
        self.name = f"{NAME}:{weights.stem}-{sha256_of(weights)[:DIGITS]}"
        self.dim = self(torch.zeros(1, 3, size, size)).shape[1]
        how = f"bicubic {size}, antialiased; mean {self.mean}, std {self.std}"
        self.record = weights_record(self.name, weights, how, self.dim)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        check_square(images)
        pixels = resize(rgb_pixels(images.to(self.device)), self.size)
        features = self.network(standardise(pixels / 255, self.mean, self.std))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(
                f"{self.name} gave {found} for {len(images)} images; it must give one vector each, (batch, dim): pool "
                "its output before scripting it"
            )
        return features.float()


def check_module(path: str | None) -> Path:
    if path is None or not Path(path).is_file() or not is_torchscript(Path(path)):
        raise UserError(
            f"features.name=torchscript needs a TorchScript module, found features.path={path}; make one with "
            "torch.jit.script(module).save(FILE)"
        )
    return Path(path)
