"""Tiny models with no weight left at its zero initialisation, and a batch."""

import pytest
import torch
from harness.drawn_models import drawn_model

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
)

LATENT = (2, 4, 4)


def level():
    return LevelSpec(depth=1, width=16, head_dim=8)


@pytest.fixture(scope="module")
def auxiliary():
    spec = AuxiliarySpec(
        image_channels=1, patch_size=2, levels=[level()], latent_channels=2, logvar_floor=-5.0
    )
    return drawn_model(spec, seed=1)


@pytest.fixture(scope="module")
def velocity():
    spec = VelocitySpec(
        image_channels=1,
        patch_size=2,
        levels=[level()],
        mapping=MappingSpec(depth=1, width=16),
        latent_shape=list(LATENT),
    )
    return drawn_model(spec, seed=2)


@pytest.fixture(scope="module")
def baseline():
    spec = VelocitySpec(
        image_channels=1, patch_size=2, levels=[level()], mapping=MappingSpec(depth=1, width=16)
    )
    return drawn_model(spec, seed=3)


@pytest.fixture(scope="module")
def sampler():
    spec = LatentSamplerSpec(latent_channels=2, levels=[level()], mapping=MappingSpec(depth=1, width=16))
    return drawn_model(spec, seed=4)


@pytest.fixture
def batch():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return Batch(
        ids=torch.tensor([40, 7, 1000, 3]),
        keys=list("abcd"),
        images=images,
        labels=torch.tensor([0, 1, 1, 0]),
    )


@pytest.fixture
def noise():
    return SampleNoise(11)


@pytest.fixture
def latents(auxiliary, batch, noise):
    """z = mu + sigma eps of eq. 3, by hand, with the noise that belongs to the samples."""
    with torch.no_grad():
        mean, logvar = auxiliary.encode(batch.images)
    return mean + logvar.exp().sqrt() * noise.normal(batch.ids, "posterior", LATENT)


@pytest.fixture
def one_by_one():
    """Splits a batch into batches of one."""

    def split(batch):
        for i, key in enumerate(batch.keys):
            row = slice(i, i + 1)
            yield Batch(ids=batch.ids[row], keys=[key], images=batch.images[row], labels=batch.labels[row])

    return split
