"""The specifications reach the paper's sizes, and refuse what cannot be built."""

import pytest
import torch

from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    VelocitySpec,
    build_model,
    count_parameters,
    latent_shape,
)


def flow_levels(*widths):
    """Two local layers a level above eight global ones, as in the paper's table."""
    *local, coarsest = widths
    return [LevelSpec(depth=2, width=w, kernel_size=7) for w in local] + [LevelSpec(depth=8, width=coarsest)]


def auxiliary_levels(*widths):
    """Two layers a level with heads of 16; all but the coarsest local."""
    *local, coarsest = widths
    return [LevelSpec(depth=2, width=w, head_dim=16, kernel_size=7) for w in local] + [
        LevelSpec(depth=2, width=coarsest, head_dim=16)
    ]


RGB_FLOW = VelocitySpec(image_channels=3, patch_size=4, levels=flow_levels(256, 512, 1024), augmentation=True)
SDV_FLOW = VelocitySpec(image_channels=4, patch_size=1, levels=flow_levels(512, 1024), augmentation=True)
SDV_AUXILIARY = AuxiliarySpec(image_channels=4, patch_size=1, levels=auxiliary_levels(128, 256, 512, 512))
RGB_AUXILIARY = AuxiliarySpec(
    image_channels=3, patch_size=4, levels=auxiliary_levels(128, 128, 256, 512, 512)
)


@pytest.mark.parametrize(
    ("spec", "millions"),
    [(RGB_FLOW, 160.5), (SDV_FLOW, 154.4), (SDV_AUXILIARY, 34.95), (LatentSamplerSpec(), 16.96)],
    ids=["RGB flow", "SDV flow", "SDV auxiliary", "latent sampler"],
)
def test_models_have_the_papers_number_of_parameters(spec, millions):
    with torch.device("meta"):
        assert count_parameters(build_model(spec)) / 1e6 == pytest.approx(millions, abs=0.05)


def test_both_of_the_papers_image_sizes_have_a_4_by_4_latent_of_4_channels():
    assert latent_shape(RGB_AUXILIARY, 256, 256) == (4, 4, 4)
    assert latent_shape(SDV_AUXILIARY, 32, 32) == (4, 4, 4)


def test_fewer_halvings_leave_a_larger_latent():
    levels = auxiliary_levels(32, 32, 32)
    spec = AuxiliarySpec(image_channels=3, patch_size=2, levels=levels, halvings=1)
    assert latent_shape(spec, 32, 48) == (4, 8, 12)


def test_a_latent_of_an_image_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"image of 36x36.*multiples of 8"):
        latent_shape(SDV_AUXILIARY, 36, 36)


def test_a_kernel_wider_than_a_coarse_grid_is_refused():
    with pytest.raises(ValueError, match=r"level 2: kernel 7 is wider than its 4x4 token grid"):
        latent_shape(SDV_AUXILIARY, 16, 16)


def test_more_halvings_than_changes_of_level_are_refused():
    with pytest.raises(ValueError, match=r"halvings 3 with 3 levels.*choose 0 to 2"):
        AuxiliarySpec(image_channels=3, patch_size=2, levels=auxiliary_levels(32, 32, 32), halvings=3)
