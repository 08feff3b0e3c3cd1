"""Plain flow matching in latent space, written out by hand."""

import dataclasses

import pytest
import torch
from harness.drawn_models import drawn_model

from lediflow.data.streams.batch import Batch
from lediflow.errors import UserError
from lediflow.flow.path import draw_times
from lediflow.models import LatentSamplerSpec, LevelSpec, MappingSpec
from lediflow.stages.draws import draw_latents, sampled_latents
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


def heard_labels(auxiliary, sampler, batch, noise, **options):
    """The labels that the model is called with; the sampler itself has no classes."""
    heard = {}

    def listen(w, t, **inputs):
        heard.update(inputs)
        return sampler(w, t)

    num_classes = options.pop("num_classes")
    stage = LatentSamplerStage(LatentSamplerStageConfig(**options), auxiliary, num_classes=num_classes)
    stage.loss(listen, batch, noise)
    return heard.get("labels")


def test_classes_are_inputs_and_are_dropped_for_the_same_images_as_in_the_flow(
    auxiliary, sampler, batch, noise
):
    crowd = dataclasses.replace(
        batch,
        ids=torch.arange(400),
        keys=[""] * 400,
        images=batch.images[:1].expand(400, -1, -1, -1),
        labels=torch.arange(400) % 2,
    )
    labels = heard_labels(auxiliary, sampler, crowd, noise, num_classes=2, label_dropout=0.2)
    is_dropped = noise.uniform(crowd.ids, "label dropout") < 0.2
    assert is_dropped.any() and torch.equal(labels, torch.where(is_dropped, 2, crowd.labels))
    assert heard_labels(auxiliary, sampler, crowd, noise, num_classes=0) is None


def test_a_class_conditional_sampler_needs_data_with_labels(auxiliary, sampler, batch, noise):
    unlabelled = dataclasses.replace(batch, labels=None)
    with pytest.raises(UserError, match=r"model\.latent_sampler\.num_classes=2, but the data has no labels"):
        heard_labels(auxiliary, sampler, unlabelled, noise, num_classes=2)


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


def test_a_trained_sampler_draws_latents_of_the_class(auxiliary, noise):
    """Classes lie at -1 and 1; "no class" draws both."""
    spec = LatentSamplerSpec(
        latent_channels=2,
        levels=[LevelSpec(depth=1, width=16, head_dim=8)],
        mapping=MappingSpec(depth=1, width=16),
        num_classes=2,
    )
    sampler = drawn_model(spec, seed=5)
    stage = LatentSamplerStage(LatentSamplerStageConfig(), auxiliary, num_classes=2)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=1e-2)
    for step in range(150):
        ids = torch.arange(64) + 64 * step
        z = (2.0 * (ids % 2) - 1)[:, None, None, None] + 0.1 * noise.normal(ids, "spread", LATENT)
        batch = Batch(ids=ids, keys=[""] * 64, images=z, labels=ids % 2, is_encoded=True)
        optimizer.zero_grad()
        stage.loss(sampler, batch, noise).loss.backward()
        optimizer.step()
    ids = torch.arange(200)
    by_class = [
        sampled_latents(
            sampler, LATENT, noise, ids, is_flow_map=False, labels=torch.full((200,), label)
        ).mean((1, 2, 3))
        for label in (0, 1, 2)
    ]
    assert (by_class[0] < 0).float().mean() > 0.95 and (by_class[1] > 0).float().mean() > 0.95
    assert 0.25 < (by_class[2] > 0).float().mean() < 0.75
