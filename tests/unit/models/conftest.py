"""Tiny specifications of the three models, for 16 x 16 images with a 4 x 4 x 4 latent."""

import pytest
from harness.drawn_models import draw_matrices

from lediflow.models import AuxiliarySpec, LatentSamplerSpec, LevelSpec, MappingSpec, VelocitySpec


def tiny_levels():
    return [
        LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3),
        LevelSpec(depth=1, width=32, head_dim=16),
    ]


@pytest.fixture
def auxiliary_spec():
    return AuxiliarySpec(image_channels=3, patch_size=2, levels=tiny_levels())


@pytest.fixture
def velocity_spec():
    mapping = MappingSpec(depth=1, width=16)
    return VelocitySpec(
        image_channels=3, patch_size=2, levels=tiny_levels(), mapping=mapping, latent_shape=[4, 4, 4]
    )


@pytest.fixture
def latent_sampler_spec():
    return LatentSamplerSpec(levels=tiny_levels()[1:], mapping=MappingSpec(depth=1, width=16))


@pytest.fixture
def drawn():
    """Draws every weight matrix of a module, so that nothing stays at its zero initialisation."""
    return draw_matrices
