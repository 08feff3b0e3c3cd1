"""MMD with a Gaussian kernel, against a sum written out pair by pair and against the formulas of two other programs."""

import math
from importlib import import_module

import pytest
import torch
from harness.embeddings import clustered, spread
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import cmmd, cmmd_estimate
from lediflow.evaluation.tiles import whole

EXACT = 1e-10  # float64 rounding of sums of a few thousand kernel values, times 1000


def pair_by_pair(x: Tensor, y: Tensor, sigma: float, scale: float, unbiased: bool) -> float:
    """MMD^2 as the definition reads."""

    def kernel(a: Tensor, b: Tensor) -> float:
        return math.exp(-(a - b).square().sum().item() / (2 * sigma**2))

    def within(z: Tensor) -> float:
        values = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j or not unbiased]
        return math.fsum(values) / len(values)

    between = math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return scale * (within(x) + within(y) - 2 * between)


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize(("sigma", "scale"), [(10.0, 1000.0), (0.5, 1.0)])
@pytest.mark.parametrize("drawn", [spread, clustered])
def test_value_is_the_definition_summed_pair_by_pair(drawn, sigma, scale, unbiased):
    x, y = drawn(23, 5, seed=1), drawn(17, 5, seed=2)
    value = cmmd(x, y, sigma=sigma, scale=scale, unbiased=unbiased)
    assert value == pytest.approx(pair_by_pair(x, y, sigma, scale, unbiased), abs=EXACT)


def test_biased_value_is_that_of_the_clip_mmd_package():
    oracle = import_module("clip_mmd.calculation")
    x, y = spread(60, 32, seed=2), spread(45, 32, seed=3, shift=0.2)
    assert cmmd(x, y) == pytest.approx(oracle.mmd(x, y).item(), abs=EXACT)
    assert cmmd(x.numpy(), y.numpy()) == cmmd(x, y)


def google_research(x: Tensor, y: Tensor) -> Tensor:
    """cmmd/distance.py of github.com/google-research/google-research, line by line, with torch for jax.numpy."""
    x_sqnorms = torch.diag(torch.matmul(x, x.T))
    y_sqnorms = torch.diag(torch.matmul(y, y.T))
    gamma = 1 / (2 * 10**2)
    k_xx = torch.mean(torch.exp(-gamma * (-2 * torch.matmul(x, x.T) + x_sqnorms[:, None] + x_sqnorms[None])))
    k_xy = torch.mean(torch.exp(-gamma * (-2 * torch.matmul(x, y.T) + x_sqnorms[:, None] + y_sqnorms[None])))
    k_yy = torch.mean(torch.exp(-gamma * (-2 * torch.matmul(y, y.T) + y_sqnorms[:, None] + y_sqnorms[None])))
    return 1000 * (k_xx + k_yy - 2 * k_xy)


@pytest.mark.parametrize("drawn", [spread, clustered])
def test_biased_value_is_that_of_the_reference_program_as_far_as_its_float32_goes(drawn):
    x, y = drawn(300, 768, seed=4).float(), drawn(200, 768, seed=5).float()
    assert cmmd(x, y) == pytest.approx(google_research(x, y).item(), abs=1e-3)
    assert cmmd(x, y) == pytest.approx(google_research(x.double(), y.double()).item(), abs=1e-9)


def test_float32_embeddings_lose_nothing_to_cancellation():
    x, y = spread(60, 32, seed=2).float(), spread(45, 32, seed=3).float()
    assert cmmd(x, y) == cmmd(x.double(), y.double())


def test_two_points_have_the_closed_form():
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    # distance 5, sigma 10
    assert cmmd(x, y) == pytest.approx(1000 * 2 * (1 - math.exp(-25 / 200)), abs=EXACT)


def test_embeddings_are_not_normalised_again():
    x, y = spread(20, 8, seed=4), spread(20, 8, seed=5)
    assert cmmd(3 * x, 3 * y, sigma=30.0) == pytest.approx(cmmd(x, y, sigma=10.0), abs=EXACT)


def test_distance_to_itself_is_zero_and_the_order_of_the_sets_does_not_matter():
    x, y = spread(30, 8, seed=6), spread(40, 8, seed=7)
    assert cmmd(x, x.clone()) == pytest.approx(0, abs=EXACT)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), abs=EXACT)


def test_unbiased_value_averages_to_zero_over_samples_of_one_distribution():
    pairs = [(spread(20, 4, seed=2 * k), spread(20, 4, seed=2 * k + 1)) for k in range(200)]
    unbiased = torch.tensor([cmmd(x, y, unbiased=True) for x, y in pairs])
    biased = torch.tensor([cmmd(x, y) for x, y in pairs])
    standard_error = (unbiased.std() / len(pairs) ** 0.5).item()
    assert abs(unbiased.mean().item()) < 4 * standard_error  # chance of 6e-5, and the seeds are fixed
    assert biased.mean() > 10 * standard_error


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_kernel_without_a_width_is_refused(sigma):
    with pytest.raises(ValueError, match="positive number"):
        cmmd(torch.rand(4, 8), torch.rand(4, 8), sigma=sigma)


def test_sets_from_different_extractors_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(4, 9\).*one feature extractor"):
        cmmd(torch.zeros(4, 8), torch.zeros(4, 9))


@pytest.mark.parametrize(("unbiased", "fewest"), [(False, 1), (True, 2)])
def test_sets_that_are_too_small_are_refused(unbiased, fewest):
    with pytest.raises(ValueError, match=f"at least {fewest} needed"):
        cmmd(torch.zeros(fewest - 1, 8), torch.zeros(5, 8), unbiased=unbiased)


def test_intervals_of_two_embeddings_are_refused():
    with pytest.raises(ValueError, match="2 and 5 embeddings, at least 3 needed"):
        cmmd_estimate(whole(torch.zeros(2, 8)), whole(torch.zeros(5, 8)), Group())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_are_counted_and_the_first_is_named(broken):
    x, y = spread(30, 8, seed=0), spread(20, 8, seed=1)
    y[[7, 12], 3] = broken
    with pytest.raises(ValueError, match="2 of 20 embeddings are not finite, the first is row 7"):
        cmmd(x, y)
