"""How sure an MMD is: the jackknife against leaving rows out one by one, and intervals against many draws."""

import math

import pytest
import torch
from harness.embeddings import clustered, spread

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import cmmd, cmmd_estimate
from lediflow.evaluation.mmd import Polynomial, estimate, kernel_sums
from lediflow.evaluation.tiles import whole

GROUP = Group()


def kid(x, y):
    return estimate(kernel_sums(whole(x), whole(y), Polynomial(), GROUP))


def mmd(x, y):
    return cmmd_estimate(whole(x), whole(y), GROUP)


@pytest.mark.parametrize("drawn", [spread, clustered])
def test_values_are_those_without_an_interval(drawn):
    x, y = drawn(31, 6, seed=1), drawn(24, 6, seed=2)
    found = mmd(x, y)
    assert (found.biased, found.unbiased) == (cmmd(x, y), cmmd(x, y, unbiased=True))


@pytest.mark.parametrize("drawn", [spread, clustered])
@pytest.mark.parametrize("estimated", [mmd, kid])
def test_influences_and_standard_error_come_from_leaving_each_row_out(drawn, estimated):
    x, y = drawn(12, 6, seed=1), drawn(9, 6, seed=2)
    found = estimated(x, y)

    def without(z, row):
        return torch.cat([z[:row], z[row + 1 :]])

    left_x = torch.tensor([estimated(without(x, row), y).unbiased for row in range(len(x))])
    left_y = torch.tensor([estimated(x, without(y, row)).unbiased for row in range(len(y))])
    variance = 0.0
    for left, influence in ((left_x.double(), found.influence_x), (left_y.double(), found.influence_y)):
        n = len(left)
        expected = (n - 1) * (found.unbiased - left)
        torch.testing.assert_close(influence, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
        variance += (n - 1) / n * (left - left.mean()).square().sum().item()
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-4)


def test_interval_is_the_normal_one_about_the_unbiased_value():
    found = mmd(spread(30, 6, seed=1), spread(20, 6, seed=2))
    low, high = found.interval()
    assert (low + high) / 2 == pytest.approx(found.unbiased)
    assert high - low == pytest.approx(2 * 1.959964 * found.standard_error)
    narrow = found.interval(level=0.5)
    assert low < narrow[0] < narrow[1] < high


def closed_form(shift: float, dim: int, sigma: float) -> float:
    """MMD^2 of N(0, I) and N(mean, I) whose means are `shift` apart: k(a, b) averages to a Gaussian of width s."""
    s = sigma**2 + 2
    return 2 * (sigma**2 / s) ** (dim / 2) * (1 - math.exp(-(shift**2) / (2 * s)))


def test_intervals_have_their_nominal_coverage_and_errors_are_the_spread():
    dim, sigma, draws = 3, 1.0, 400
    truth = closed_form(1.0, dim, sigma)
    generator = torch.Generator().manual_seed(0)
    offset = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    found = []
    for _ in range(draws):
        x = torch.randn(80, dim, generator=generator, dtype=torch.float64) + offset
        y = torch.randn(50, dim, generator=generator, dtype=torch.float64)
        found.append(cmmd_estimate(whole(x), whole(y), GROUP, sigma=sigma, scale=1.0))
    hits = sum(low <= truth <= high for low, high in (each.interval() for each in found))
    values = torch.tensor([each.unbiased for each in found])
    errors = torch.tensor([each.standard_error for each in found])
    assert 0.92 < hits / draws < 0.98  # 0.95 +- 3 standard errors of 400 draws
    assert values.mean().item() == pytest.approx(truth, abs=3 * values.std().item() / draws**0.5)
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.1)  # itself 3.5 % sure


def test_intervals_of_two_sets_of_one_distribution_hold_zero():
    hits = 0
    for draw in range(200):
        low, high = mmd(spread(40, 8, seed=2 * draw), spread(40, 8, seed=2 * draw + 1)).interval()
        hits += low <= 0 <= high
    assert hits > 0.92 * 200  # there the jackknife errs on the safe side
