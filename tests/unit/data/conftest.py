"""Drawn pictures, the shards made of them, and a codec with known values, shared by the tests of data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lediflow.codecs import Latents, PixelCodec
from lediflow.data import encode as encode_module
from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.shards.reader import ShardReader
from lediflow.data.synthetic import make_synthetic_images

COUNT, SIZE = 50, 16


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """50 pictures of 16 x 16 in two class folders."""
    folder = tmp_path_factory.mktemp("pictures")
    make_synthetic_images(folder, COUNT, size=SIZE, classes=2)
    return folder


@pytest.fixture(scope="session")
def shards(pictures, tmp_path_factory) -> Path:
    """The same as seven shards of up to eight."""
    output = tmp_path_factory.mktemp("shards")
    prepare(PrepareConfig(source=str(pictures), output=str(output), size=SIZE, shard_samples=8, workers=1))
    return output


@pytest.fixture(scope="session")
def reader(shards) -> ShardReader:
    return ShardReader.open(shards)


class SlantedCodec(PixelCodec):
    """Stochastic; the mean is the image under a slope from left to right (so mirroring matters), times `scale`."""

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
    """The codec that `encode` builds, whatever is configured."""
    codec = SlantedCodec()
    monkeypatch.setattr(encode_module, "build_codec", lambda config, device: codec)
    return codec
