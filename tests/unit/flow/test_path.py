"""The straight path, and the distributions of training times. Draws are hashes of (seed, id), so nothing is flaky."""

import pytest
import torch
from scipy import stats
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

from lediflow.flow.noise import SampleNoise
from lediflow.flow.path import TimeConfig, align, draw_times, path_velocity, point_on_path, stride


def ends():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)


def test_the_path_runs_from_the_prior_to_the_data():
    x_0, x_1 = ends()
    torch.testing.assert_close(point_on_path(x_0, x_1, torch.zeros(3)), x_0)
    torch.testing.assert_close(point_on_path(x_0, x_1, torch.ones(3)), x_1)


def test_path_and_velocity_are_torchcfms_rectified_flow():
    x_0, x_1 = ends()
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    matcher = ConditionalFlowMatcher(sigma=0.0)
    _, expected_point, expected_velocity = matcher.sample_location_and_conditional_flow(x_0, x_1, t=t)
    torch.testing.assert_close(point_on_path(x_0, x_1, t), expected_point)
    torch.testing.assert_close(path_velocity(x_0, x_1), expected_velocity)


def test_times_are_aligned_sample_by_sample():
    aligned = align(torch.tensor([0.0, 0.5]), torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16))
    assert aligned.shape == (2, 1, 1, 1)
    assert aligned.dtype == torch.bfloat16


COUNT = 50_000
LAWS = [TimeConfig(time=law) for law in ("uniform", "logit_normal", "stratified")]

each_law = pytest.mark.parametrize("config", LAWS, ids=lambda config: config.time)


def times(config, ids=None, seed=1):
    return draw_times(config, SampleNoise(seed), torch.arange(COUNT) if ids is None else ids)


def p_value(sample, law):
    return stats.kstest(sample.double().numpy(), law).pvalue


def test_uniform_times_are_uniform():
    assert p_value(times(TimeConfig()), stats.uniform.cdf) > 1e-3


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (-0.5, 0.7)])
def test_logits_of_logit_normal_times_are_normal(mean, sd):
    drawn = times(TimeConfig(time="logit_normal", time_mean=mean, time_sd=sd))
    assert p_value(drawn.double().logit(), stats.norm(mean, sd).cdf) > 1e-3
    assert p_value(times(TimeConfig()), lambda t: stats.norm.cdf(torch.tensor(t).logit(), mean, sd)) < 1e-9


@pytest.mark.parametrize("strata", [1, 2, 7, 64, 100])
@pytest.mark.parametrize("first", [0, 13, 10**12])
def test_as_many_consecutive_samples_as_strata_have_a_time_in_each(strata, first):
    drawn = times(TimeConfig(time="stratified", time_strata=strata), torch.arange(first, first + strata))
    assert (drawn * strata).long().sort().values.tolist() == list(range(strata))


def test_a_batch_smaller_than_the_strata_is_spread_too():
    """Eight of 64: at least one time in each quarter, in every run of eight samples."""
    quarters = (4 * times(TimeConfig(time="stratified"))).long()
    for first in range(64):
        assert set(quarters[first : first + 8].tolist()) == {0, 1, 2, 3}


def test_stratified_times_are_uniform_inside_their_strata():
    drawn = times(TimeConfig(time="stratified")).double()
    assert p_value((drawn * 64) % 1, stats.uniform.cdf) > 1e-3


def test_a_samples_stratified_time_is_uniform_over_seeds():
    """So that no image is always shown at the same times."""
    drawn = [times(TimeConfig(time="stratified"), torch.tensor([5]), seed) for seed in range(2000)]
    assert p_value(torch.cat(drawn), stats.uniform.cdf) > 1e-3


def test_stratified_times_estimate_an_integral_better_than_uniform_ones():
    """int_0^1 t^2 = 1/3 from 64 times; the error's standard deviation falls from 64^-1/2 to about 64^-3/2."""
    config = {law: TimeConfig(time=law) for law in ("uniform", "stratified")}
    spread = {law: times(how)[: 64 * 700].view(700, 64).square().mean(1).std() for law, how in config.items()}
    assert spread["stratified"] < spread["uniform"] / 20


@each_law
def test_a_samples_time_does_not_depend_on_its_batch(config):
    together = times(config, torch.arange(100))
    assert torch.equal(times(config, torch.tensor([42, 7, 99])), together[[42, 7, 99]])


@each_law
def test_another_seed_gives_other_draws(config):
    ids = torch.arange(50)
    assert (times(config, ids, seed=1) != times(config, ids, seed=2)).all()


@each_law
def test_times_lie_between_the_prior_and_the_data(config):
    drawn = times(config)
    assert drawn.dtype == torch.float32 and drawn.shape == (COUNT,)
    assert drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("strata", range(1, 200))
def test_every_stratum_is_visited(strata):
    assert sorted(k * stride(strata) % strata for k in range(strata)) == list(range(strata))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "beta"}, "stage.time='beta' is unknown; use one of uniform, logit_normal, stratified"),
        ({"time_sd": 0.0}, r"stage.time_sd=0\.0 must be above 0"),
        ({"time_mean": float("inf")}, "stage.time_mean=inf"),
        ({"time_strata": 0}, "stage.time_strata=0 must be at least 1"),
    ],
)
def test_an_invalid_distribution_of_times_is_refused_with_its_option(options, message):
    with pytest.raises(ValueError, match=message):
        TimeConfig(**options)
