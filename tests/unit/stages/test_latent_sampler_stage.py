"""Plain flow matching in latent space, written out by hand."""

import torch

from lediflow.flow.path import draw_times
from lediflow.stages.draws import draw_latents
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig

LATENT = (2, 4, 4)


def stage_of(auxiliary):
    return LatentSamplerStage(LatentSamplerStageConfig(), auxiliary)


def test_the_loss_is_eq_2_from_noise_to_latents(auxiliary, sampler, batch, noise, latents):
    t = noise.uniform(batch.ids, "time")[:, None, None, None]
    w = noise.normal(batch.ids, "latent noise", LATENT)
    with torch.no_grad():
        v = sampler((1 - t) * w + t * latents, t.flatten())
    loss, metrics, *_ = stage_of(auxiliary).loss(sampler, batch, noise)
    torch.testing.assert_close(loss, ((v - (latents - w)) ** 2).mean())
    torch.testing.assert_close(metrics["latent_mean_square"], latents.square().mean())


def test_times_follow_the_law_that_is_configured(auxiliary, sampler, batch, noise):
    seen = []
    handle = sampler.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    config = LatentSamplerStageConfig(time="logit_normal", time_mean=0.3, time_sd=0.5)
    LatentSamplerStage(config, auxiliary).loss(sampler, batch, noise)
    handle.remove()
    assert torch.equal(seen[0], draw_times(config, noise, batch.ids))
    assert torch.equal(seen[0], (0.3 + 0.5 * noise.normal(batch.ids, "time")).sigmoid())


def test_a_sample_has_the_same_latent_in_every_stage_and_batch(auxiliary, batch, noise, latents, one_by_one):
    torch.testing.assert_close(draw_latents(auxiliary, batch, noise), latents)
    singles = [draw_latents(auxiliary, single, noise) for single in one_by_one(batch)]
    torch.testing.assert_close(torch.cat(singles), latents)


def test_the_auxiliary_model_gets_no_gradients_and_the_sampler_all(auxiliary, sampler, batch, noise):
    auxiliary.zero_grad()
    stage_of(auxiliary).loss(sampler, batch, noise).loss.backward()
    assert all(weight.grad is None for weight in auxiliary.parameters())
    assert all(weight.grad is not None for weight in sampler.parameters())


def test_the_draws_of_a_sample_do_not_depend_on_its_batch(auxiliary, sampler, batch, noise, one_by_one):
    stage = stage_of(auxiliary)
    whole = stage.loss(sampler, batch, noise).loss
    parts = [stage.loss(sampler, single, noise).loss for single in one_by_one(batch)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
