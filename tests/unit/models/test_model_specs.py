"""The specifications reach the paper's sizes, and refuse what cannot be built."""

from dataclasses import replace

import pytest
import torch
from harness.commands import compose

from lediflow.models import AuxiliarySpec, LevelSpec, MappingSpec, build_model, count_parameters, latent_shape
from lediflow.stages.flow import velocity_spec

MODELS = ("paper_rgb", "paper_sdv")


def shipped(model, *options):
    """A training command with one of the shipped models."""
    return compose("train", "experiment=smoke", f"model={model}", "data.path=a", *options)


def millions(spec):
    with torch.device("meta"):
        return count_parameters(build_model(spec)) / 1e6


def auxiliary_levels(*widths):
    """Two layers a level with heads of 16; all but the coarsest local."""
    *local, coarsest = widths
    return [LevelSpec(depth=2, width=w, head_dim=16, kernel_size=7) for w in local] + [
        LevelSpec(depth=2, width=coarsest, head_dim=16)
    ]


SDV_AUXILIARY = AuxiliarySpec(image_channels=4, patch_size=1, levels=auxiliary_levels(128, 256, 512, 512))


@pytest.mark.parametrize("prior", ["learned", "gaussian"])
@pytest.mark.parametrize(("model", "expected"), [("paper_rgb", 160.5), ("paper_sdv", 154.4)])
def test_the_shipped_flow_models_have_the_papers_number_of_parameters(model, expected, prior):
    spec = velocity_spec(shipped(model, f"prior={prior}"))
    assert millions(spec) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("model", "expected"), [("paper_rgb", 37), ("paper_sdv", 35)])
def test_the_shipped_auxiliary_models_have_the_papers_size(model, expected):
    assert millions(shipped(model).model.auxiliary) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_the_shipped_latent_samplers_have_the_papers_size(model):
    assert millions(shipped(model).model.latent_sampler) == pytest.approx(17, rel=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_shipped_latents_are_4_by_4_and_with_one_halving_less_8_by_8(model):
    chosen = shipped(model).model
    size, halvings = chosen.image_size, len(chosen.auxiliary.levels) - 1
    assert latent_shape(chosen.auxiliary, size, size) == (4, 4, 4)
    larger = shipped(model, f"model.auxiliary.halvings={halvings - 1}").model.auxiliary
    assert latent_shape(larger, size, size) == (4, 8, 8)


@pytest.mark.parametrize("fewer", [0, 1], ids=["4x4", "8x8"])
@pytest.mark.parametrize("model", MODELS)
def test_both_latents_pass_through_models_of_the_shipped_structure(model, fewer):
    """Shipped levels, grids and kernels; narrow, so that it takes a moment only."""
    chosen = shipped(model).model
    levels = [replace(level, depth=1, width=8, d_ff=8, head_dim=8) for level in chosen.auxiliary.levels]
    spec = replace(chosen.auxiliary, levels=levels, halvings=len(levels) - 1 - fewer)
    side, size = 4 * 2**fewer, chosen.image_size
    with torch.inference_mode():
        module = build_model(spec, attention_route="sdpa")
        posterior = module.encode(torch.zeros(1, chosen.channels, size, size))
        assert posterior.mean.shape == posterior.logvar.shape == (1, 4, side, side)
        assert module.decode(posterior.mean).mean.shape == (1, chosen.channels, size, size)


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"logvar_ceiling": -7.0}, r"logvar_ceiling -7\.0 is not above logvar_floor -7\.0"),
        ({"levels": []}, "levels: the list is empty"),
        ({"latent_channels": 0}, "latent_channels=0"),
    ],
)
def test_invalid_specifications_are_refused(fields, message):
    given = {"image_channels": 3, "patch_size": 2, "levels": auxiliary_levels(32)} | fields
    with pytest.raises(ValueError, match=message):
        AuxiliarySpec(**given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 96}, "width 96 with head_dim 64: .*choose a head_dim that divides 96"),
        ({"width": 60, "head_dim": 12}, "head_dim 12: .*multiple of 8"),
        ({"width": 64, "head_dim": 0}, "head_dim=0"),
        ({"width": 64, "depth": 0}, "depth=0"),
        ({"width": 64, "kernel_size": 0}, "kernel_size=0"),
        ({"width": 64, "kernel_size": 3.0}, r"kernel_size=3\.0 must be a whole number"),
        ({"width": 64, "d_ff": -3}, "d_ff=-3 must be at least 0"),
    ],
)
def test_a_level_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LevelSpec(**({"depth": 1} | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": -1}, r"depth=-1 must be at least 0"),
        ({"width": 0}, "width=0 must be at least 1"),
        ({"width": 31}, r"mapping\.width 31: .*make it even"),
        ({"d_ff": -1}, r"d_ff=-1 must be at least 0"),
    ],
)
def test_a_mapping_network_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MappingSpec(**fields)
