"""Drawn pictures and the shards made of them, shared by the tests of data."""

from pathlib import Path

import pytest

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
