"""Joined norms: the same network, with one product for the scales of all norms, which follows the old weights."""

import copy

import pytest
import torch
from torch import nn

from lediflow.nn.hourglass import Hourglass
from lediflow.nn.joined_norms import join_norms
from lediflow.nn.norms import AdaRMSNorm
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

LEVELS = [LevelSpec(depth=1, width=16, head_dim=8), LevelSpec(depth=2, width=32, head_dim=8)]


@pytest.fixture
def pair():
    """An hourglass with drawn weights, and its joined copy with the weights that the copy had before."""
    torch.manual_seed(0)
    module = Hourglass(
        HourglassSpec(
            in_channels=3, out_channels=3, patch_size=2, levels=LEVELS, mapping=MappingSpec(width=24)
        )
    )
    for weight in module.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.1)
    joined = copy.deepcopy(module)
    weights = dict(joined.named_parameters())
    join_norms(joined)
    return module, joined, weights


def outputs(module, **more):
    torch.manual_seed(1)
    return module(torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.7]), **more)


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"s": torch.tensor([0.9, 0.8])}], ids=["velocity", "flow map"])
def test_the_network_is_the_same(pair, more):
    module, joined, _ = pair
    torch.testing.assert_close(outputs(joined, **more), outputs(module, **more), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_it_follows_the_weights_that_it_had(pair):
    module, joined, weights = pair
    for name, weight in module.named_parameters():
        weight.mul_(1.5)
        weights[name].copy_(weight)
    torch.testing.assert_close(outputs(joined), outputs(module), rtol=1e-5, atol=1e-6)


def test_no_norm_has_a_product_of_its_own(pair):
    module, joined, _ = pair
    norms = [part for part in joined.modules() if isinstance(part, AdaRMSNorm)]
    assert len(norms) == 2 * (1 + 2 + 1)  # two for each layer
    assert not any(isinstance(norm.linear, nn.Linear) for norm in norms)
    sizes = [sum(weight.numel() for weight in each.parameters()) for each in (module, joined)]
    assert sizes[0] == sizes[1]
