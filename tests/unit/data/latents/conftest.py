"""A stochastic codec with known values, used in place of the configured codec."""

import numpy as np
import pytest
import torch

from lediflow.codecs import Latents, PixelCodec
from lediflow.data import encode as encode_module


class SlantedCodec(PixelCodec):
    """The mean is the image under a slope from left to right (so mirroring matters), times `scale`."""

    name = "slanted"
    is_exact = False
    is_stochastic = True
    scale = 1 / 3

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, images):
        self.batches.append(len(images))
        slope = torch.linspace(0.5, 1, images.shape[-1])
        return Latents(images * slope * self.scale, torch.full_like(images, 2 * np.log(0.1)))


@pytest.fixture
def slanted(monkeypatch) -> SlantedCodec:
    codec = SlantedCodec()
    monkeypatch.setattr(encode_module, "build_codec", lambda config, device: codec)
    return codec
