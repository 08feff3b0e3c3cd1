"""Sums by bin, against NumPy's histograms, and on all stages: bins are parts of the loss."""

import numpy as np
import pytest
import torch

from lediflow.flow.path import draw_times
from lediflow.stages.auxiliary import AuxiliaryStage, AuxiliaryStageConfig
from lediflow.stages.bins import PIXELS, SIGMA_BINS, TIME_BINS, by_sigma, by_time, sigma_edges, some_pixels
from lediflow.stages.flow import FlowStage, FlowStageConfig
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_histogram(found, places, values, edges):
    sums, _ = np.histogram(places, edges, weights=values)
    counts, _ = np.histogram(places, edges)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.sums, sums, rtol=1e-5, atol=1e-5)  # float32 sums of a thousand


def test_by_time_is_a_histogram_over_tenths():
    t, values = drawn(1000).sigmoid(), drawn(1000, seed=1)
    assert_histogram(by_time(values, t), t.numpy(), values.numpy(), np.linspace(0, 1, TIME_BINS + 1))


def test_by_sigma_is_a_histogram_over_doublings_with_open_ends():
    logvar, values = 6 * drawn(10, 100) - 4, drawn(10, 100, seed=1)
    edges = [0.0, *sigma_edges(), np.inf]
    assert len(edges) == SIGMA_BINS + 1
    sigma = (0.5 * logvar).exp().numpy().ravel()
    assert_histogram(by_sigma(values, logvar), sigma, values.numpy().ravel(), edges)


def test_a_nan_value_stays_in_its_bin():
    found = by_time(torch.tensor([1.0, torch.nan]), torch.tensor([0.05, 0.95]))
    assert found.sums[0] == 1
    assert found.sums.isnan().tolist() == [False] * 9 + [True]


def test_nan_places_are_counted_in_some_bin():
    found = by_sigma(torch.ones(1, 3), torch.tensor([[torch.nan, -torch.inf, torch.inf]]))
    assert found.counts.sum() == 3


@pytest.mark.parametrize("shape", [(3, 256, 256), (4, 32, 32), (1, 100, 60)])
def test_pixels_are_taken_from_all_rows_columns_and_channels(shape):
    # coordinates of each entry
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    chosen = some_pixels(places.reshape(len(shape), *shape))
    assert PIXELS / 2 <= chosen.shape[1] <= PIXELS
    for axis, size in enumerate(shape):
        taken = torch.bincount(chosen[axis], minlength=size)
        assert (taken > 0).float().mean() > 0.9  # nearly every row, column and channel
        assert taken.max() <= 4 * PIXELS / size  # and none much more often than its share


def test_a_small_image_is_counted_whole():
    image = drawn(2, 1, 8, 8)
    assert torch.equal(some_pixels(image), image.flatten(1))


@pytest.fixture
def results(auxiliary, velocity, baseline, sampler, batch, noise):
    """What each stage makes of the batch."""
    eq_5 = AuxiliaryStage(AuxiliaryStageConfig(beta=0.1), latent_shape=(2, 4, 4), logvar_floor=-5.0)
    return {
        "auxiliary": eq_5.loss(auxiliary, batch, noise),
        "flow": FlowStage(FlowStageConfig(prior_widening=0), auxiliary).loss(velocity, batch, noise),
        "baseline": FlowStage(FlowStageConfig(), None).loss(baseline, batch, noise),
        "sampler": LatentSamplerStage(LatentSamplerStageConfig(), auxiliary).loss(sampler, batch, noise),
    }


def test_every_stages_loss_is_the_mean_over_its_samples(results):
    for result in results.values():
        assert result.per_sample.shape == (4,)
        torch.testing.assert_close(result.per_sample.mean(), result.loss.detach())
        torch.testing.assert_close(result.metrics["loss"], result.loss.detach())


def test_nothing_but_the_loss_holds_on_to_gradients(results):
    for result in results.values():
        assert result.loss.requires_grad
        assert not result.per_sample.requires_grad
        assert not any(value.requires_grad for value in result.metrics.values())
        assert not any(part.requires_grad for bins in result.bins.values() for part in bins)


@pytest.mark.parametrize("stage", ["flow", "baseline", "sampler"])
def test_the_loss_by_time_is_each_samples_loss_in_its_tenth(results, batch, noise, stage):
    t = draw_times(FlowStageConfig(), noise, batch.ids)
    losses = results[stage].per_sample.numpy()
    assert_histogram(results[stage].bins["loss_by_time"], t.numpy(), losses, np.linspace(0, 1, 11))


def test_the_velocity_error_by_time_is_not_weighted(results):
    sums, counts = results["flow"].bins["velocity_mse_by_time"]
    assert counts.sum() == 4
    torch.testing.assert_close(sums.sum() / 4, results["flow"].metrics["velocity_mse"])


@pytest.mark.parametrize(("stage", "whole"), [("auxiliary", "vgl"), ("flow", "velocity_mse")])
def test_the_bins_of_sigma_sum_to_the_error_of_all_pixels(results, stage, whole):
    sums, counts = results[stage].bins["loss_by_sigma"]
    assert counts.sum() == 4 * 64
    torch.testing.assert_close(sums.sum() / counts.sum(), results[stage].metrics[whole])


def test_the_error_of_a_pixel_is_in_the_bin_of_the_sigma_that_its_path_starts_from(
    auxiliary, batch, noise, latents, results
):
    with torch.no_grad():
        sigma = (0.5 * auxiliary.decode(latents).logvar).exp().numpy().ravel()
    counts, _ = np.histogram(sigma, [0.0, *sigma_edges(), np.inf])
    assert (counts > 0).sum() > 1  # this prior has something to tell apart
    for stage in ("auxiliary", "flow"):
        np.testing.assert_array_equal(results[stage].bins["loss_by_sigma"].counts, counts)
