"""The objectives against scipy, torch.distributions, closed forms and their definitions."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

from lediflow.flow.losses import (
    beta_nll_loss,
    flow_matching_loss,
    gaussian_kl,
    gaussian_kl_by_feature,
    importance_weight,
    importance_weighted_flow_loss,
    kl_with_free_bits,
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


def test_with_its_constant_summed_it_is_scipys_negative_log_likelihood():
    y, mean, logvar = images(3)
    expected = -stats.norm.logpdf(y, mean, (0.5 * logvar).exp()).sum(axis=(1, 2, 3))
    found = variance_guided_loss(y, mean, logvar, with_log_2pi=True, reduction="sum")
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("factor", "constant"), [(0.5, 0.5 * math.log(2 * math.pi)), (1.0, math.log(2 * math.pi))]
)
def test_the_free_constants_are_a_factor_and_an_offset(factor, constant):
    gaussians = images(3)
    plain = variance_guided_loss(*gaussians)
    found = variance_guided_loss(*gaussians, factor=factor, with_log_2pi=True)
    torch.testing.assert_close(found, plain * factor / 0.5 + constant)


def test_minimising_the_variance_guided_loss_finds_the_samples_mean_and_variance():
    y = 3 + 0.5 * images(1)[0].flatten()[:50, None]  # 50 observations of one pixel
    mean, logvar = (torch.zeros(1, dtype=y.dtype, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS(
        [mean, logvar],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = variance_guided_loss(y, mean.expand_as(y), logvar.expand_as(y)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(mean.detach(), y.mean(dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(logvar.detach().exp(), y.var(dim=0, correction=0), atol=1e-6, rtol=0)


def test_beta_zero_is_the_variance_guided_loss():
    gaussians = images(3)
    assert torch.equal(beta_nll_loss(*gaussians, beta=0.0), variance_guided_loss(*gaussians))


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_beta_nll_multiplies_each_pixels_likelihood_by_a_power_of_its_variance(beta):
    y, mean, logvar = images(3)
    likelihood = stats.norm.logpdf(y, mean, (0.5 * logvar).exp())
    expected = (-torch.from_numpy(likelihood) * logvar.exp() ** beta).sum(dim=(1, 2, 3))
    found = beta_nll_loss(y, mean, logvar, beta=beta, with_log_2pi=True, reduction="sum")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nlls_gradients_are_those_of_its_paper(beta):
    """Eqs. 6 and 7 of arXiv:2203.09168, here for log sigma^2: the weight itself has no gradient."""
    y, mean, logvar = images(3)
    mean.requires_grad_(), logvar.requires_grad_()
    beta_nll_loss(y, mean, logvar, beta=beta, reduction="sum").sum().backward()
    variance = logvar.detach().exp()
    error = mean.detach() - y
    torch.testing.assert_close(mean.grad, error * variance ** (beta - 1))
    torch.testing.assert_close(logvar.grad, 0.5 * variance**beta * (1 - error**2 / variance))


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_a_beta_outside_of_its_range_is_refused(beta):
    with pytest.raises(ValueError, match=f"beta {beta} of beta-NLL: choose 0"):
        beta_nll_loss(*images(3), beta=beta)


@pytest.mark.parametrize("loss", [variance_guided_loss, lambda *g, **how: beta_nll_loss(*g, beta=0.5, **how)])
def test_an_unknown_reduction_is_refused(loss):
    with pytest.raises(ValueError, match="reduction 'median' over pixels is unknown; use 'mean' or 'sum'"):
        loss(*images(3), reduction="median")


def test_kl_is_the_sum_over_features_of_torchs():
    mean, logvar = images(2)
    q, p = Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(gaussian_kl(mean, logvar), kl_divergence(q, p).sum(dim=(1, 2, 3)))


def test_free_bits_charge_each_entry_of_each_sample_at_least_so_much():
    mean, logvar = images(2)
    p = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kl = kl_divergence(Normal(mean, (0.5 * logvar).exp()), p)
    free = kl.median().item()
    found = kl_with_free_bits(gaussian_kl_by_feature(mean, logvar), free)
    torch.testing.assert_close(found, torch.maximum(kl, torch.tensor(free)).sum(dim=(1, 2, 3)))
    assert (found > gaussian_kl(mean, logvar)).all()


def test_without_free_bits_the_kl_is_charged_as_it_is_to_the_bit():
    mean, logvar = images(2)
    assert torch.equal(
        kl_with_free_bits(gaussian_kl_by_feature(mean, logvar), 0.0), gaussian_kl(mean, logvar)
    )


def test_entries_below_their_free_bits_have_no_gradient():
    mean = torch.tensor([[0.1, 2.0]], requires_grad=True)
    kl_with_free_bits(gaussian_kl_by_feature(mean, torch.zeros(1, 2)), 0.5).sum().backward()
    assert mean.grad.tolist() == [[0.0, 2.0]]  # d (mu^2 / 2)


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


def test_normalised_weights_average_one_in_each_sample_and_keep_their_proportions():
    logvar = images(1)[0]
    plain = importance_weight(logvar, exponent=1.5, cap=2.0)
    found = importance_weight(logvar, exponent=1.5, cap=2.0, normalize=True)
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), torch.ones(2, dtype=logvar.dtype))
    torch.testing.assert_close(found / found[:, :1, :1, :1], plain / plain[:, :1, :1, :1])


def test_normalised_weights_do_not_change_the_size_of_an_even_error():
    target, logvar = images(2)
    found = importance_weighted_flow_loss(target + 0.3, target, logvar, exponent=2.0, cap=5.0, normalize=True)
    torch.testing.assert_close(found, torch.full((2,), 0.09, dtype=target.dtype))


def test_an_infinite_cap_caps_nothing():
    logvar = images(1)[0]
    torch.testing.assert_close(importance_weight(logvar, exponent=1.0, cap=math.inf), (-0.5 * logvar).exp())


@pytest.mark.parametrize(
    ("exponent", "cap", "message"),
    [
        (-1.0, 10.0, r"exponent -1\.0 .*choose 0"),
        (math.nan, 10.0, "exponent nan"),
        (1.0, 0.0, r"cap 0\.0 .*more than 0"),
        (1.0, -2.0, r"cap -2\.0"),
    ],
)
def test_invalid_weights_are_refused(exponent, cap, message):
    with pytest.raises(ValueError, match=message):
        importance_weighted_flow_loss(*images(3), exponent=exponent, cap=cap)


WITH_GRADIENTS = {
    "variance guided": variance_guided_loss,
    "variance guided, summed": lambda *g: variance_guided_loss(
        *g, factor=1.0, with_log_2pi=True, reduction="sum"
    ),
    "flow matching": lambda v, target, _: flow_matching_loss(v, target),
    "kl": lambda mean, _, logvar: gaussian_kl(mean, logvar),
    "weighted": lambda *g: importance_weighted_flow_loss(*g, exponent=1.5, cap=2.0),
    "weighted, normalised": lambda *g: importance_weighted_flow_loss(
        *g, exponent=0.5, cap=9.0, normalize=True
    ),
}


@pytest.mark.parametrize("loss", WITH_GRADIENTS.values(), ids=WITH_GRADIENTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_are_those_of_finite_differences(loss, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn(2, 1, 3, 2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    ]
    assert torch.autograd.gradcheck(loss, inputs)


def test_gradients_of_beta_nll_in_y_and_mean_are_those_of_finite_differences():
    """Not in logvar, whose weight is held still on purpose."""
    y, mean, logvar = (tensor[:, :, :2, :2] for tensor in images(3))
    inputs = (y.clone().requires_grad_(), mean.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda y, mean: beta_nll_loss(y, mean, logvar, beta=0.5), inputs)


@pytest.mark.parametrize("loss", WITH_GRADIENTS.values(), ids=WITH_GRADIENTS)
def test_a_samples_loss_is_its_own(loss):
    """Alone in a batch, a sample has the same value."""
    inputs = images(3)
    alone = [loss(*(tensor[i : i + 1] for tensor in inputs)) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), loss(*inputs))


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (variance_guided_loss, [(2, 3, 4, 4), (2, 1, 4, 4), (2, 3, 4, 4)]),
        (variance_guided_loss, [(4, 3, 4, 4), (4, 3, 4, 4), (4,)]),  # would be taken for columns
        (gaussian_kl, [(2, 4, 2, 2), (2, 4)]),
        (flow_matching_loss, [(2, 1), (2,)]),
        (flow_matching_loss, [(2, 3, 4, 4), (1, 3, 4, 4)]),
        (importance_weighted_flow_loss, [(2, 3, 4, 4), (2, 3, 4, 4), (3, 3, 4, 4)]),
    ],
)
def test_tensors_of_different_shapes_are_refused(loss, shapes):
    options = {"exponent": 1.0, "cap": 10.0} if loss is importance_weighted_flow_loss else {}
    with pytest.raises(ValueError, match=r"different shapes: .*give all the same shape"):
        loss(*map(torch.zeros, shapes), **options)


@pytest.mark.parametrize("shape", [(), (2, 1, 1, 1), (1, 3, 1, 1)])
def test_a_variance_for_several_pixels_is_that_of_each(shape):
    y, mean, _ = images(3)
    logvar = torch.randn(shape, dtype=y.dtype)
    expected = variance_guided_loss(y, mean, logvar.expand_as(y))
    torch.testing.assert_close(variance_guided_loss(y, mean, logvar), expected)
