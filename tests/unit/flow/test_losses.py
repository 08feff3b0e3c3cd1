"""The objectives against torch.distributions, closed forms and their definitions."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from lediflow.flow.losses import (
    flow_matching_loss,
    gaussian_kl,
    importance_weight,
    importance_weighted_flow_loss,
    variance_guided_loss,
)


def images(count):
    torch.manual_seed(0)
    return torch.randn(count, 2, 3, 4, 4, dtype=torch.float64)


def test_variance_guided_loss_is_the_negative_log_likelihood_without_its_constant():
    y, mean, logvar = images(3)
    likelihood = Normal(mean, (0.5 * logvar).exp()).log_prob(y)
    expected = (-likelihood - 0.5 * math.log(2 * math.pi)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(variance_guided_loss(y, mean, logvar), expected)


def test_variance_guided_loss_is_least_at_the_mean_and_the_squared_residual():
    y = images(1)[0]
    mean = y.mean(dim=(1, 2, 3), keepdim=True).expand_as(y).clone().requires_grad_()
    best = (y - mean.detach()).square().mean(dim=(1, 2, 3), keepdim=True).log()
    logvar = best.clone().requires_grad_()
    variance_guided_loss(y, mean, logvar.expand_as(y)).sum().backward()
    torch.testing.assert_close(mean.grad.sum(dim=(1, 2, 3)), torch.zeros(2, dtype=y.dtype))
    torch.testing.assert_close(logvar.grad, torch.zeros_like(logvar))


def test_kl_is_the_sum_over_features_of_torchs():
    mean, logvar = images(2)
    q, p = Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(gaussian_kl(mean, logvar), kl_divergence(q, p).sum(dim=(1, 2, 3)))


def test_kl_of_the_target_itself_is_zero():
    zeros = torch.zeros(2, 7)
    assert gaussian_kl(zeros, zeros).tolist() == [0.0, 0.0]


def test_flow_matching_loss_is_the_mean_square_error():
    velocity, target = images(2)
    expected = torch.nn.functional.mse_loss(velocity, target, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(flow_matching_loss(velocity, target), expected)


def test_importance_weight_is_a_capped_power_of_sigma():
    logvar = images(1)[0]
    expected = (0.5 * logvar).exp().pow(-1.5).clamp(max=2.0)
    torch.testing.assert_close(importance_weight(logvar, exponent=1.5, cap=2.0), expected)


def test_importance_weight_survives_a_vanishing_sigma():
    assert (
        importance_weight(torch.tensor([-1e4]), exponent=2.0, cap=10.0).item()
        == torch.tensor(10.0).log().exp()
    )


def test_exponent_zero_is_plain_flow_matching():
    velocity, target, logvar = images(3)
    weighted = importance_weighted_flow_loss(velocity, target, logvar, exponent=0.0, cap=1.0)
    torch.testing.assert_close(weighted, flow_matching_loss(velocity, target))


def test_the_weight_is_applied_before_the_mean():
    velocity, target, logvar = images(3)
    error = (velocity - target).square()
    expected = (error * (-logvar).exp().clamp(max=3.0)).mean(dim=(1, 2, 3))
    found = importance_weighted_flow_loss(velocity, target, logvar, exponent=2.0, cap=3.0)
    torch.testing.assert_close(found, expected)
