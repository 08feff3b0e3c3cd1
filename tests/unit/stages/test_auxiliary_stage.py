"""Eq. 5: variance-guided loss and divergence, against torch.distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lediflow.stages.auxiliary import AuxiliaryStage, AuxiliaryStageConfig

LATENT, PIXELS = (2, 4, 4), 64


def stage_of(beta):
    return AuxiliaryStage(AuxiliaryStageConfig(beta=beta), latent_shape=LATENT, logvar_floor=-5.0)


@pytest.fixture
def terms(auxiliary, batch, latents):
    """Negative log-likelihood per pixel (without log 2 pi / 2), and divergence in nats."""
    with torch.no_grad():
        posterior, prior = auxiliary.encode(batch.images), auxiliary.decode(latents)
    likelihood = Normal(prior.mean, prior.logvar.exp().sqrt()).log_prob(batch.images)
    nll = -likelihood.mean() - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    q = Normal(posterior.mean, posterior.logvar.exp().sqrt())
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
    return nll, kl


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_the_loss_is_eq_5_per_pixel(auxiliary, batch, noise, terms, beta):
    nll, kl = terms
    loss, metrics, *_ = stage_of(beta).loss(auxiliary, batch, noise)
    torch.testing.assert_close(loss, nll + beta * kl / PIXELS)
    torch.testing.assert_close(metrics["vgl"], nll)
    torch.testing.assert_close(metrics["kl_nats"], kl)
    torch.testing.assert_close(metrics["loss"], loss.detach())


def test_beta_nll_takes_the_place_of_the_first_term(auxiliary, batch, noise, latents, terms):
    nll, kl = terms
    with torch.no_grad():
        mean, logvar = auxiliary.decode(latents)
    pixels = 0.5 * (logvar + (batch.images - mean) ** 2 / logvar.exp())
    expected = (pixels * logvar.exp().sqrt()).mean() + 0.1 * kl / PIXELS  # sigma^(2 * 0.5)
    config = AuxiliaryStageConfig(beta=0.1, nll_beta=0.5)
    loss, metrics, *_ = AuxiliaryStage(config, latent_shape=LATENT, logvar_floor=-5.0).loss(
        auxiliary, batch, noise
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["loss"], expected)
    torch.testing.assert_close(metrics["vgl"], nll)  # the curve stays comparable


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, r"stage\.beta=-0\.1 must be at least 0"),
        ({"nll_beta": 2.0}, r"stage\.nll_beta=2\.0 must be at least 0 and at most 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        AuxiliaryStageConfig(**options)


def test_metrics_tell_how_close_and_how_sure_the_prior_is(auxiliary, batch, noise, latents):
    _, metrics, *_ = stage_of(1.0).loss(auxiliary, batch, noise)
    with torch.no_grad():
        prior = auxiliary.decode(latents)
    torch.testing.assert_close(metrics["prior_mse"], (prior.mean - batch.images).square().mean())
    torch.testing.assert_close(metrics["prior_sigma"], prior.logvar.exp().sqrt().mean())
    torch.testing.assert_close(metrics["share_at_floor"], (prior.logvar < -4.9).float().mean())


def test_metrics_carry_no_gradients_and_the_loss_reaches_every_weight(auxiliary, batch, noise):
    auxiliary.zero_grad()
    loss, metrics, *_ = stage_of(1.0).loss(auxiliary, batch, noise)
    loss.backward()
    assert not any(value.requires_grad for value in metrics.values())
    assert all(weight.grad is not None for weight in auxiliary.parameters())


def test_each_samples_draws_are_its_own_whatever_batch_it_is_in(auxiliary, batch, noise, one_by_one):
    whole = stage_of(1.0).loss(auxiliary, batch, noise).loss
    parts = [stage_of(1.0).loss(auxiliary, single, noise).loss for single in one_by_one(batch)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
