"""Hashed noise is as good as drawn noise: distribution, and independence along every key.

The noise is deterministic, so nothing here is flaky: a bound of five standard errors is generous for chance
and tight for a bug.
"""

import pytest
import torch
from scipy import stats

from lediflow.flow.noise import SampleNoise

COUNT = 200_000
IDS = torch.arange(COUNT)


def correlation(a, b):
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].item()


FIVE_STANDARD_ERRORS = 5 / COUNT**0.5


@pytest.mark.parametrize("along", ["ids", "shape"])
def test_normal_draws_are_normal(along):
    noise = SampleNoise(seed=1)
    drawn = noise.normal(IDS, "x") if along == "ids" else noise.normal(IDS[:1], "x", (COUNT,))[0]
    assert stats.kstest(drawn.double().numpy(), "norm").pvalue > 1e-3
    assert stats.kurtosis(drawn.double().numpy()) == pytest.approx(0, abs=5 * (24 / COUNT) ** 0.5)


@pytest.mark.parametrize("along", ["ids", "shape"])
def test_uniform_draws_are_uniform(along):
    noise = SampleNoise(seed=1)
    drawn = noise.uniform(IDS, "x") if along == "ids" else noise.uniform(IDS[:1], "x", (COUNT,))[0]
    assert stats.kstest(drawn.double().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_neighbouring_keys_give_uncorrelated_draws(kind):
    def draw(seed=1, name="x", shift=0):
        return getattr(SampleNoise(seed), kind)(IDS + shift, name)

    base = draw()
    for other in (draw(seed=2), draw(name="y"), draw(shift=1)):
        assert abs(correlation(base, other)) < FIVE_STANDARD_ERRORS
        assert abs(correlation(base.square(), other.square())) < FIVE_STANDARD_ERRORS


def test_the_entries_of_one_sample_are_uncorrelated():
    entries = SampleNoise(seed=1).normal(torch.arange(20_000), "x", (16,))
    off_diagonal = torch.corrcoef(entries.T) - torch.eye(16)
    assert off_diagonal.abs().max() < 5 / 20_000**0.5
    squares = torch.corrcoef(entries.square().T) - torch.eye(16)
    assert squares.abs().max() < 5 / 20_000**0.5  # Box-Muller pairs share a radius and must not show it


def test_no_two_samples_share_a_draw():
    pairs = SampleNoise(seed=1).normal(IDS, "x", (2,))
    assert len(torch.unique(pairs, dim=0)) == COUNT
