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


def test_beta_nll_replaces_the_first_term(auxiliary, batch, noise, latents, terms):
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


def stage_with(**options):
    return AuxiliaryStage(AuxiliaryStageConfig(**options), latent_shape=LATENT, logvar_floor=-5.0)


@pytest.fixture
def kl_entries(auxiliary, batch):
    """The KL divergence of each latent entry, in nats, by torch.distributions."""
    with torch.no_grad():
        posterior = auxiliary.encode(batch.images)
    q = Normal(posterior.mean, posterior.logvar.exp().sqrt())
    return kl_divergence(q, Normal(torch.zeros(()), torch.ones(())))


def test_beta_grows_with_a_samples_place_in_the_run(auxiliary, batch, noise, terms, kl_entries):
    """Linearly from 0: ids are 40, 7, 1000 and 3, and the warm-up is over at 100."""
    betas = 0.5 * torch.tensor([0.4, 0.07, 1.0, 0.03])
    nll, _ = terms
    found = stage_with(beta=0.5, beta_warmup_images=100).loss(auxiliary, batch, noise)
    charged = (betas * kl_entries.sum(dim=(1, 2, 3))).mean() / PIXELS
    torch.testing.assert_close(found.loss, nll + charged)
    torch.testing.assert_close(found.metrics["beta"], betas.mean())


def test_a_samples_beta_does_not_depend_on_its_batch(auxiliary, batch, noise, one_by_one):
    stage = stage_with(beta_warmup_images=100, free_bits=0.2)
    whole = stage.loss(auxiliary, batch, noise)
    parts = [stage.loss(auxiliary, single, noise) for single in one_by_one(batch)]
    torch.testing.assert_close(torch.cat([part.per_sample for part in parts]), whole.per_sample)


class Engine(torch.nn.Module):
    """Like DeepSpeed's wrapper: always in training mode, independently of its model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *arguments, **named):
        return self.model(*arguments, **named)


@pytest.mark.parametrize("wrapped", [lambda model: model, Engine], ids=["model", "engine"])
def test_held_out_losses_use_the_full_beta(wrapped, auxiliary, batch, noise, terms):
    nll, kl = terms
    module = wrapped(auxiliary)
    auxiliary.eval()
    try:
        found = stage_with(beta=0.5, beta_warmup_images=10**6).loss(module, batch, noise)
    finally:
        auxiliary.train()
    torch.testing.assert_close(found.loss, nll + 0.5 * kl / PIXELS)


def test_free_bits_of_each_entry_cost_nothing(auxiliary, batch, noise, terms, kl_entries):
    nll, kl = terms
    found = stage_with(beta=0.5, free_bits=0.3).loss(auxiliary, batch, noise)
    charged = kl_entries.clamp(min=0.3).sum(dim=(1, 2, 3)).mean()
    assert charged > kl  # some entry is below
    torch.testing.assert_close(found.loss, nll + 0.5 * charged / PIXELS)
    torch.testing.assert_close(found.metrics["kl_nats"], kl)  # the curve says what it is


def test_the_divergence_is_reported_by_channel(auxiliary, batch, noise, kl_entries):
    sums, counts = stage_of(1.0).loss(auxiliary, batch, noise).bins["kl_nats_by_channel"]
    torch.testing.assert_close(sums / counts, kl_entries.sum(dim=(2, 3)).mean(dim=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_warmup_images": -1}, r"stage\.beta_warmup_images=-1 must be at least 0"),
        ({"free_bits": -0.5}, r"stage\.free_bits=-0\.5 must be at least 0"),
        ({"beta": -0.1}, r"stage\.beta=-0\.1 must be at least 0"),
        ({"nll_beta": 2.0}, r"stage\.nll_beta=2\.0 must be at least 0 and at most 1"),
    ],
)
def test_invalid_options_are_refused_with_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        AuxiliaryStageConfig(**options)


def test_metrics_include_the_error_and_sigma_of_the_prior(auxiliary, batch, noise, latents):
    _, metrics, *_ = stage_of(1.0).loss(auxiliary, batch, noise)
    with torch.no_grad():
        prior = auxiliary.decode(latents)
    torch.testing.assert_close(metrics["prior_mse"], (prior.mean - batch.images).square().mean())
    torch.testing.assert_close(metrics["prior_sigma"], prior.logvar.exp().sqrt().mean())
    torch.testing.assert_close(metrics["share_at_floor"], (prior.logvar < -4.9).float().mean())


def test_metrics_have_no_gradients_and_the_loss_reaches_every_weight(auxiliary, batch, noise):
    auxiliary.zero_grad()
    loss, metrics, *_ = stage_of(1.0).loss(auxiliary, batch, noise)
    loss.backward()
    assert not any(value.requires_grad for value in metrics.values())
    assert all(weight.grad is not None for weight in auxiliary.parameters())


def test_the_draws_of_a_sample_do_not_depend_on_its_batch(auxiliary, batch, noise, one_by_one):
    whole = stage_of(1.0).loss(auxiliary, batch, noise).loss
    parts = [stage_of(1.0).loss(auxiliary, single, noise).loss for single in one_by_one(batch)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
