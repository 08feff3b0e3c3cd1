"""Eqs. 2 and 6, written out by hand for tiny models."""

import pytest
import torch

from lediflow.flow.noise import SampleNoise
from lediflow.stages.flow import FlowStage, FlowStageConfig


def stage_of(auxiliary, **config):
    return FlowStage(FlowStageConfig(**config), auxiliary)


def times(batch, noise):
    """t of each sample, with room for channels and pixels."""
    return noise.uniform(batch.ids, "time")[:, None, None, None]


def flow_by_hand(auxiliary, velocity, batch, noise, latents):
    """sigma, and the squared error of the velocity along the path from a draw of the prior."""
    y, t = batch.images, times(batch, noise)
    with torch.no_grad():
        mean, logvar = auxiliary.decode(latents)
        sigma = logvar.exp().sqrt()
        x = mean + sigma * noise.normal(batch.ids, "prior", (1, 8, 8))
        v = velocity((1 - t) * x + t * y, t.flatten(), z=latents)
    return sigma, (v - (y - x)) ** 2


@pytest.mark.parametrize(("exponent", "cap"), [(1.0, 10.0), (2.0, 1.5), (0.5, 1e9), (0.0, 10.0)])
def test_the_loss_is_eq_6(auxiliary, velocity, batch, noise, latents, exponent, cap):
    sigma, error = flow_by_hand(auxiliary, velocity, batch, noise, latents)
    weight = torch.minimum(sigma**-exponent, torch.tensor(cap))
    loss, metrics = stage_of(auxiliary, exponent=exponent, cap=cap).loss(velocity, batch, noise)
    torch.testing.assert_close(loss, (weight * error).mean())
    torch.testing.assert_close(metrics["velocity_mse"], error.mean())
    torch.testing.assert_close(metrics["prior_sigma"], sigma.mean())


def test_the_gaussian_baseline_is_plain_flow_matching_from_noise(baseline, batch, noise):
    y, t = batch.images, times(batch, noise)
    x = noise.normal(batch.ids, "prior", (1, 8, 8))
    with torch.no_grad():
        error = (baseline((1 - t) * x + t * y, t.flatten()) - (y - x)) ** 2
    loss, metrics = stage_of(None, exponent=3.0, cap=0.1).loss(
        baseline, batch, noise
    )  # weights mean nothing here
    torch.testing.assert_close(loss, error.mean())
    assert metrics.keys() == {"loss", "velocity_mse"}


def test_both_methods_are_judged_at_the_same_times_and_noise(auxiliary, velocity, baseline, batch, noise):
    """The comparison of their curves is fair: only where paths start and what z tells differs."""
    seen = {}

    def watch(name, module):
        def hook(_, arguments):
            seen[name] = arguments[1]

        return module.register_forward_pre_hook(hook)

    for name, module, parent in (("learned", velocity, auxiliary), ("gaussian", baseline, None)):
        handle = watch(name, module)
        stage_of(parent).loss(module, batch, noise)
        handle.remove()
    assert torch.equal(seen["learned"], seen["gaussian"])


def test_the_auxiliary_model_gets_no_gradients_and_the_velocity_all(auxiliary, velocity, batch, noise):
    auxiliary.zero_grad()
    velocity.zero_grad()
    stage_of(auxiliary).loss(velocity, batch, noise).loss.backward()
    assert all(weight.grad is None for weight in auxiliary.parameters())
    assert all(weight.grad is not None for weight in velocity.parameters())


def test_each_samples_draws_are_its_own_whatever_batch_it_is_in(
    auxiliary, velocity, batch, noise, one_by_one
):
    stage = stage_of(auxiliary)
    whole = stage.loss(velocity, batch, noise).loss
    parts = [stage.loss(velocity, single, noise).loss for single in one_by_one(batch)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_another_seed_draws_otherwise(auxiliary, velocity, batch, noise):
    stage = stage_of(auxiliary)
    assert stage.loss(velocity, batch, noise).loss != stage.loss(velocity, batch, SampleNoise(12)).loss


def test_labels_are_passed_on_only_to_class_conditional_models(auxiliary, batch, noise):
    class Listening(torch.nn.Module):
        def forward(self, x, t, z=None, labels=None):
            self.labels = labels
            return x

    plain, conditional = Listening(), Listening()
    FlowStage(FlowStageConfig(), auxiliary).loss(plain, batch, noise)
    FlowStage(FlowStageConfig(), auxiliary, is_class_conditional=True).loss(conditional, batch, noise)
    assert plain.labels is None
    assert conditional.labels.tolist() == [0, 1, 1, 0]
