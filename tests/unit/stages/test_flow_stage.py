"""Eqs. 2 and 6, written out by hand for tiny models."""

import dataclasses
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.flow.path import draw_times
from lediflow.stages.flow import FlowStage, FlowStageConfig


def config_of(**options):
    return FlowStageConfig(**{"prior_widening": 0, **options})


def stage_of(auxiliary, **config):
    return FlowStage(config_of(**config), auxiliary)


def times(batch, noise):
    """t of each sample, with room for channels and pixels."""
    return noise.uniform(batch.ids, "time")[:, None, None, None]


def flow_by_hand(auxiliary, velocity, batch, noise, latents, widening=0.0, scale=1.0):
    """sigma, and the squared error of the velocity along the path from a draw of the prior."""
    y, t = batch.images, times(batch, noise)
    with torch.no_grad():
        mean, logvar = auxiliary.decode(latents)
        sigma = (scale**2 * logvar.exp() + widening**2).sqrt()
        x = mean + sigma * noise.normal(batch.ids, "prior", (1, 8, 8))
        v = velocity((1 - t) * x + t * y, t.flatten(), z=latents)
    return sigma, (v - (y - x)) ** 2


@pytest.mark.parametrize(("exponent", "cap"), [(1.0, 10.0), (2.0, 1.5), (0.5, 1e9), (0.0, 10.0)])
def test_the_loss_is_eq_6(auxiliary, velocity, batch, noise, latents, exponent, cap):
    sigma, error = flow_by_hand(auxiliary, velocity, batch, noise, latents)
    weight = torch.minimum(sigma**-exponent, torch.tensor(cap))
    loss, metrics, *_ = stage_of(auxiliary, exponent=exponent, cap=cap).loss(velocity, batch, noise)
    torch.testing.assert_close(loss, (weight * error).mean())
    torch.testing.assert_close(metrics["velocity_mse"], error.mean())
    torch.testing.assert_close(metrics["prior_sigma"], sigma.mean())


@pytest.mark.parametrize(
    ("asked", "scale"), [({}, 1.0), ({"prior_scale": 3.0}, 3.0)], ids=["a sum", "scaled"]
)
def test_a_widened_prior_is_drawn_from_and_weighed_by_its_wider_sigma(
    auxiliary, velocity, batch, noise, latents, asked, scale
):
    sigma, error = flow_by_hand(auxiliary, velocity, batch, noise, latents, widening=0.3, scale=scale)
    weight = torch.minimum(1 / sigma, torch.tensor(2.5))
    found = stage_of(auxiliary, prior_widening=0.3, cap=2.5, **asked).loss(velocity, batch, noise)
    torch.testing.assert_close(found.loss, (weight * error).mean())
    torch.testing.assert_close(found.metrics["prior_sigma"], sigma.mean())


def test_the_gaussian_baseline_is_plain_flow_matching_from_noise(baseline, batch, noise):
    y, t = batch.images, times(batch, noise)
    x = noise.normal(batch.ids, "prior", (1, 8, 8))
    with torch.no_grad():
        error = (baseline((1 - t) * x + t * y, t.flatten()) - (y - x)) ** 2
    # weights mean nothing here
    loss, metrics, *_ = stage_of(None, exponent=3.0, cap=0.1).loss(baseline, batch, noise)
    torch.testing.assert_close(loss, error.mean())
    assert metrics.keys() == {"loss", "velocity_mse"}


def test_both_methods_are_validated_with_the_same_times_and_noise(
    auxiliary, velocity, baseline, batch, noise
):
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


def test_the_draws_of_a_sample_do_not_depend_on_its_batch(auxiliary, velocity, batch, noise, one_by_one):
    stage = stage_of(auxiliary)
    whole = stage.loss(velocity, batch, noise).loss
    parts = [stage.loss(velocity, single, noise).loss for single in one_by_one(batch)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_another_seed_gives_other_draws(auxiliary, velocity, batch, noise):
    stage = stage_of(auxiliary)
    assert stage.loss(velocity, batch, noise).loss != stage.loss(velocity, batch, SampleNoise(12)).loss


class Listening(torch.nn.Module):
    """Keeps what it is called with."""

    def forward(self, x, t, z=None, labels=None, augmentation=None):
        self.x, self.t, self.labels = x, t, labels
        return x


def heard(config, batch, noise, *, auxiliary=None, **options):
    module = Listening()
    FlowStage(config, auxiliary, **options).loss(module, batch, noise)
    return module


def test_normalised_weights_divide_each_images_by_their_mean(auxiliary, velocity, batch, noise, latents):
    sigma, error = flow_by_hand(auxiliary, velocity, batch, noise, latents)
    weight = torch.minimum(sigma**-2.0, torch.tensor(1.5))
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    stage = stage_of(auxiliary, exponent=2.0, cap=1.5, normalize_weights=True)
    torch.testing.assert_close(stage.loss(velocity, batch, noise).loss, (weight * error).mean())


@pytest.mark.parametrize("time", ["uniform", "logit_normal", "stratified"])
def test_times_follow_the_law_that_is_configured(batch, noise, time):
    config = config_of(time=time, time_mean=0.3, time_strata=5)
    assert torch.equal(heard(config, batch, noise).t, draw_times(config, noise, batch.ids))


def test_labels_are_passed_on_only_to_class_conditional_models(auxiliary, batch, noise):
    config = config_of(label_dropout=0.0)
    assert heard(config, batch, noise, auxiliary=auxiliary).labels is None
    conditional = heard(config, batch, noise, auxiliary=auxiliary, num_classes=2)
    assert conditional.labels.tolist() == [0, 1, 1, 0]


def many(batch, count):
    labels = torch.arange(count) % 2
    images = batch.images[:1].expand(count, -1, -1, -1)
    return dataclasses.replace(
        batch, ids=torch.arange(count), keys=[""] * count, images=images, labels=labels
    )


def test_dropped_labels_become_the_null_class_with_the_given_probability(batch, noise):
    crowd = many(batch, 5000)
    labels = heard(config_of(label_dropout=0.2), crowd, noise, num_classes=2).labels
    is_dropped = labels == 2
    assert is_dropped.float().mean().item() == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / 5000) ** 0.5)
    assert torch.equal(labels[~is_dropped], crowd.labels[~is_dropped])
    assert set(crowd.labels[is_dropped].tolist()) == {0, 1}


def test_labels_are_dropped_at_all_times_alike(batch, noise):
    module = heard(config_of(label_dropout=0.5), many(batch, 5000), noise, num_classes=2)
    is_dropped = module.labels == 2
    difference = module.t[is_dropped].mean() - module.t[~is_dropped].mean()
    assert abs(difference) < 5 * 2 * (1 / 12 / 5000) ** 0.5  # standard error of two means of 2500 uniforms


@pytest.mark.parametrize(("share", "expected"), [(0.0, [0, 1, 1, 0]), (1.0, [2, 2, 2, 2])])
def test_no_label_or_every_label_can_be_dropped(batch, noise, share, expected):
    config = config_of(label_dropout=share)
    assert heard(config, batch, noise, num_classes=2).labels.tolist() == expected


def test_whether_a_label_is_dropped_does_not_depend_on_the_batch(batch, noise, one_by_one):
    config, crowd = config_of(label_dropout=0.5), many(batch, 40)
    whole = heard(config, crowd, noise, num_classes=2).labels
    parts = [heard(config, single, noise, num_classes=2).labels for single in one_by_one(crowd)]
    assert torch.equal(torch.cat(parts), whole) and 2 in whole
    assert torch.equal(crowd.labels, many(batch, 40).labels)  # the batch itself is left as it was


def test_a_class_conditional_model_needs_data_with_labels(batch, noise):
    unlabelled = dataclasses.replace(batch, labels=None)
    with pytest.raises(UserError, match=r"model\.velocity\.num_classes=2, but the data has no labels"):
        heard(config_of(), unlabelled, noise, num_classes=2)


def test_optimal_transport_pairs_draws_and_images_by_their_distance(batch, noise):
    y, x = batch.images, noise.normal(batch.ids, "prior", (1, 8, 8))
    rows, columns = linear_sum_assignment((x[:, None] - y).square().flatten(2).sum(2))
    partner = torch.empty(4, dtype=torch.int64)
    partner[columns] = torch.from_numpy(rows)
    t = times(batch, noise)
    found = heard(config_of(coupling="optimal_transport"), batch, noise).x
    torch.testing.assert_close(found, (1 - t) * x[partner] + t * y)
    assert partner.tolist() != [0, 1, 2, 3]  # this batch has something to exchange


def test_draws_of_the_learned_prior_are_not_exchanged(auxiliary):
    with pytest.raises(UserError, match=r"stage\.coupling=optimal_transport .*use .*prior=gaussian"):
        stage_of(auxiliary, coupling="optimal_transport")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponent": -1.0}, r"stage\.exponent=-1\.0 must be at least 0"),
        ({"cap": 0.0}, r"stage\.cap=0\.0 must be above 0"),
        ({"prior_widening": -0.1}, r"stage\.prior_widening=-0\.1 must be at least 0"),
        ({"prior_widening": math.nan}, r"stage\.prior_widening=nan must be"),
        ({"prior_widening": math.inf}, r"stage\.prior_widening=inf must be"),
        ({"prior_scale": 0.0}, r"stage\.prior_scale=0\.0 must be above 0"),
        ({"coupling": "random"}, r"stage\.coupling='random' .*use one of independent, optimal_transport"),
        ({"label_dropout": 1.5}, r"stage\.label_dropout=1\.5 must be at least 0 and at most 1"),
        ({"time": "late"}, r"stage\.time='late'"),
    ],
)
def test_invalid_options_are_refused_with_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        FlowStageConfig(**options)


def test_a_width_that_is_not_measured_yet_is_not_taken_for_zero(auxiliary, velocity, batch, noise):
    with pytest.raises(RuntimeError, match=r"was not measured before the first step"):
        stage_of(auxiliary, prior_widening="auto").loss(velocity, batch, noise)
