"""What stages make of an augmented batch: every model is given the numbers of the images that it sees."""

from dataclasses import replace

import pytest
import torch
from harness.drawn_models import drawn_model

from lediflow.flow.path import draw_times
from lediflow.stages.auxiliary import AuxiliaryStage, AuxiliaryStageConfig
from lediflow.stages.flow import FlowStage, FlowStageConfig
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig

LATENT = (2, 4, 4)
NUMBERS = torch.tensor(
    [[0, 1, 0.5, -1, 1, 0, 0, 0, 0], [0.0] * 9, [1, 0, 0, 0, 0, 1, 1, 0, 0], [0] * 7 + [1, 2]]
)


def with_input(model, seed):
    """The same kind of model with the input, all its matrices drawn."""
    return drawn_model(replace(model.spec, augmentation=True), seed)


@pytest.fixture
def augmented(batch):
    return replace(batch, augmentation=NUMBERS)


@pytest.fixture
def parent(auxiliary):
    return with_input(auxiliary, 1)


@pytest.fixture
def z(parent, augmented, noise):
    """A draw of q(z | y, numbers), by hand."""
    with torch.no_grad():
        mean, logvar = parent.encode(augmented.images, augmentation=NUMBERS)
    return mean + logvar.exp().sqrt() * noise.normal(augmented.ids, "posterior", LATENT)


def test_the_auxiliary_stage_fits_the_prior_of_augmented_images(parent, augmented, noise, z):
    stage = AuxiliaryStage(AuxiliaryStageConfig(), latent_shape=LATENT, logvar_floor=-5.0)
    found = stage.loss(parent, augmented, noise).metrics["prior_mse"]
    with torch.no_grad():
        mean = parent.decode(z, augmentation=NUMBERS).mean
        other = parent.decode(z).mean
    torch.testing.assert_close(found, (augmented.images - mean).square().mean())
    assert (mean - other).abs().max() > 1e-3


def test_the_flow_starts_from_the_augmented_prior_and_receives_the_numbers(
    parent, velocity, augmented, noise, z
):
    velocity = with_input(velocity, 2)
    found = (
        FlowStage(FlowStageConfig(prior_widening=0.0), parent)
        .loss(velocity, augmented, noise)
        .metrics["velocity_mse"]
    )
    y, t = augmented.images, noise.uniform(augmented.ids, "time")
    with torch.no_grad():
        mean, logvar = parent.decode(z, augmentation=NUMBERS)
        x = mean + logvar.exp().sqrt() * noise.normal(augmented.ids, "prior", (1, 8, 8))
        v = velocity(x + t[:, None, None, None] * (y - x), t, z, augmentation=NUMBERS)
    torch.testing.assert_close(found, (v - (y - x)).square().mean())


def test_the_baseline_receives_the_augmentation_numbers(baseline, augmented, noise):
    baseline = with_input(baseline, 3)
    found = FlowStage(FlowStageConfig(), None).loss(baseline, augmented, noise).loss
    y, t = augmented.images, noise.uniform(augmented.ids, "time")
    x = noise.normal(augmented.ids, "prior", (1, 8, 8))
    with torch.no_grad():
        v = baseline(x + t[:, None, None, None] * (y - x), t, augmentation=NUMBERS)
    torch.testing.assert_close(found, (v - (y - x)).square().mean())


def test_the_latent_sampler_is_conditioned_on_the_augmentation(parent, sampler, augmented, noise, z):
    sampler, config = with_input(sampler, 4), LatentSamplerStageConfig()
    found = LatentSamplerStage(config, parent).loss(sampler, augmented, noise).loss
    w, t = noise.normal(augmented.ids, "latent noise", LATENT), draw_times(config, noise, augmented.ids)
    with torch.no_grad():
        v = sampler(w + t[:, None, None, None] * (z - w), t, augmentation=NUMBERS)
    torch.testing.assert_close(found, (v - (z - w)).square().mean())


def test_an_augmented_batch_is_refused_by_a_model_without_the_input(baseline, augmented, noise):
    with pytest.raises(ValueError, match="augmentation: given, but this model was built without"):
        FlowStage(FlowStageConfig(), None).loss(baseline, augmented, noise)
