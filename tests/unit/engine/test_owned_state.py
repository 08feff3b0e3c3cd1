"""Clipping and the update of the weights are PyTorch's own, to the bit, without its bookkeeping."""

import copy

import pytest
import torch
from torch import nn

from lediflow.engine.owned_state import adamw, clip_gradient, create_moments, steps_made, update_weights

SHAPES = [(3,), (4, 5), (1,), (2, 3, 4)]
UNUSED = 1  # weight that gets no gradient in every other step


def weights_and_optimizer():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    groups = [
        {"params": weights[:2], "lr": 1e-2, "weight_decay": 0.1},
        {"params": weights[2:], "lr": 3e-2, "weight_decay": 0.0},
    ]
    optimizer = adamw(groups, (0.9, 0.95))
    create_moments(optimizer, weights)
    return weights, optimizer


def give_gradients(weights, seed, scale=1.0):
    torch.manual_seed(seed)
    for number, weight in enumerate(weights):
        gradient = scale * torch.randn(weight.shape)
        weight.grad = None if number == UNUSED and seed % 2 else gradient


@pytest.mark.parametrize("most", [0.0, 0.5, 1e6])
def test_clipping_gives_the_bits_of_pytorch(most):
    weights, optimizer = weights_and_optimizer()
    give_gradients(weights, 1)
    expected = copy.deepcopy(weights)
    for weight, other in zip(weights, expected, strict=True):
        other.grad = None if weight.grad is None else weight.grad.clone()
    norm = clip_gradient(optimizer, weights, most)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(expected, most or torch.inf))
    for weight, other in zip(weights, expected, strict=True):
        assert weight.grad is None if other.grad is None else torch.equal(weight.grad, other.grad)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_updates_give_the_bits_of_pytorch_and_a_bad_step_changes_nothing(bad):
    weights, optimizer = weights_and_optimizer()
    others, reference = weights_and_optimizer()
    for seed in range(6):
        for some in (weights, others):
            give_gradients(some, seed, scale=0.1 * 10**seed)
            if seed == 3:
                some[0].grad[0] = bad
        clip_gradient(optimizer, weights, 1.0)
        update_weights(optimizer)
        reference.found_inf = (~nn.utils.clip_grad_norm_(others, 1.0).isfinite()).float()
        reference.step()
        assert all(weight.grad is None for weight in weights)
        for weight, other in zip(weights, others, strict=True):
            assert torch.equal(weight, other)
            for name, value in optimizer.state[weight].items():
                assert torch.equal(value, reference.state[other][name])
    assert steps_made(optimizer) == 5  # of six, one was bad
