"""Directions and their test, against closed forms, slow sums and a planted attribute."""

import math

import pytest
import torch

from lediflow.editing.directions import (
    area_under_curve,
    auc_interval,
    doubts,
    fitted,
    scores,
    shrunk_covariance,
    standard_error,
    with_test,
)
from lediflow.errors import UserError

SHAPE = (2, 3, 3)
AXIS = torch.nn.functional.normalize(torch.arange(1.0, 19), dim=0)


def planted(count, shift, seed, noise=1.0):
    """Draws of N(shift AXIS, noise^2 I) in the shape of latents."""
    generator = torch.manual_seed(seed)
    return (noise * torch.randn(count, 18, generator=generator) + shift * AXIS).reshape(count, *SHAPE)


@pytest.mark.parametrize("estimator", ["means", "probe"])
def test_a_planted_direction_is_found_with_the_auc_that_theory_expects(estimator):
    """Scores are N(0, 1) and N(d, 1), so the AUC is Phi(d / sqrt 2)."""
    having, lacking = planted(2000, 1.5, 0), planted(2000, 0.0, 1)
    direction = with_test(
        fitted(having, lacking, space="z", estimator=estimator), planted(2000, 1.5, 2), planted(2000, 0.0, 3)
    )
    assert direction.vector.flatten() @ AXIS > 0.98
    assert direction.unit == pytest.approx(1, abs=0.03)
    assert direction.separation == pytest.approx(1.5, abs=0.1)
    assert direction.spread == pytest.approx(math.sqrt(18), rel=0.03)
    expected = 0.5 * (1 + math.erf(1.5 / 2))
    assert direction.test["auc"] == pytest.approx(expected, abs=0.02)
    assert direction.test["auc_low"] < expected < direction.test["auc_high"]
    assert doubts(direction) == []


def test_the_probe_leaves_out_what_varies_anyway_and_the_means_do_not():
    """The means differ along the first two axes, of which the second has a hundred times the variance."""
    scale = torch.tensor([1.0, 10.0, 1.0, 1.0])
    sets = [
        (torch.randn(4000, 4, generator=torch.manual_seed(seed)) * scale + shift).reshape(-1, 4, 1, 1)
        for seed, shift in enumerate((torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.zeros(4)))
    ]
    probe, means = (
        fitted(*sets, space="z", estimator=estimator).vector.flatten() for estimator in ("probe", "means")
    )
    assert abs(probe[1]) < 0.05 and probe[0] > 0.98
    assert means[1] > 0.5


def test_the_probe_is_the_solution_of_its_normal_equations():
    having, lacking = planted(30, 1.0, 4).double(), planted(20, 0.0, 5).double()
    found = fitted(having, lacking, space="z", estimator="probe").vector.flatten().double()
    sets = [one.flatten(1) for one in (having, lacking)]
    inside = torch.cat([one - one.mean(dim=0) for one in sets])
    expected = shrunk_covariance(inside).inverse() @ (sets[0].mean(dim=0) - sets[1].mean(dim=0))
    torch.testing.assert_close(found, expected / expected.norm(), rtol=1e-6, atol=1e-6)


def test_the_covariance_is_shrunk_as_by_the_sums_of_ledoit_and_wolf():
    centred = torch.randn(12, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    centred -= centred.mean(dim=0)
    plain = sum(torch.outer(x, x) for x in centred) / 12
    identity = torch.eye(5, dtype=torch.float64) * plain.trace() / 5
    error = sum((torch.outer(x, x) - plain).square().sum() for x in centred) / 12**2
    share = min(1.0, (error / (plain - identity).square().sum()).item())
    assert 0 < share < 1
    torch.testing.assert_close(shrunk_covariance(centred), share * identity + (1 - share) * plain)


def test_the_covariance_of_many_pictures_is_hardly_shrunk_and_of_few_it_can_be_inverted():
    scale = torch.tensor([1.0, 3.0], dtype=torch.float64)
    many = torch.randn(20_000, 2, generator=torch.manual_seed(0), dtype=torch.float64) * scale
    torch.testing.assert_close(shrunk_covariance(many), torch.diag(scale**2), rtol=0.05, atol=0.1)
    few = torch.randn(4, 50, generator=torch.manual_seed(0), dtype=torch.float64)
    assert torch.linalg.eigvalsh(shrunk_covariance(few - few.mean(dim=0))).min() > 0.01


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    having, lacking = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 0.0, 2.0, 5.0])
    pairs = [(a > b) + 0.5 * (a == b) for a in having.tolist() for b in lacking.tolist()]
    assert area_under_curve(having, lacking) == pytest.approx(sum(pairs) / 12)
    assert area_under_curve(having + 9, lacking) == 1
    assert area_under_curve(torch.zeros(4), torch.zeros(5)) == 0.5


@pytest.mark.parametrize("auc", [0.5, 0.8, 1.0])
def test_limits_are_two_standard_errors_of_their_own_away_even_at_one(auc):
    low, high = auc_interval(auc, 30, 40)
    assert (auc - low) / standard_error(low, 30, 40) == pytest.approx(1.96, abs=1e-3)
    if auc < 1:
        assert (high - auc) / standard_error(high, 30, 40) == pytest.approx(1.96, abs=1e-3)
    assert low < auc <= high <= 1


def test_the_standard_error_at_chance_is_that_of_the_mann_whitney_statistic():
    """Var(U) = m n (m + n + 1) / 12, and the AUC is U / (m n)."""
    assert standard_error(0.5, 6, 9) == pytest.approx(math.sqrt(16 / 12 / 54))


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Binormal scores; 95 % of 400 intervals, up to four standard errors of that share."""
    generator, truth, covered = torch.manual_seed(0), 0.5 * (1 + math.erf(0.5)), 0
    for _ in range(400):
        low, high = auc_interval(
            area_under_curve(torch.randn(20, generator=generator) + 1, torch.randn(20, generator=generator)),
            20,
            20,
        )
        covered += low <= truth <= high
    assert covered / 400 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 400))


def test_sets_that_do_not_differ_are_doubted():
    sets = [planted(40, 0.0, seed) for seed in range(4)]
    direction = with_test(fitted(*sets[:2], space="w", estimator="means"), *sets[2:])
    assert "carries nothing" in doubts(direction)[0]
    swapped = planted(40, 0.0, 2), planted(40, 2.0, 3)
    turned = with_test(
        fitted(planted(40, 2.0, 0), planted(40, 0.0, 1), space="w", estimator="means"), *swapped
    )
    assert "on the other side" in doubts(turned)[0]


def test_the_tested_half_changes_the_auc_and_not_the_direction():
    having, lacking = planted(20, 2.0, 0), planted(20, 0.0, 1)
    made = fitted(having, lacking, space="z", estimator="probe")
    one = with_test(made, planted(20, 2.0, 2), planted(20, 0.0, 3))
    other = with_test(made, planted(20, 0.0, 3), planted(20, 2.0, 2))
    assert one._replace(test={}) == other._replace(test={})
    assert one.test["auc"] == pytest.approx(1 - other.test["auc"])


def test_scores_are_coordinates_along_the_direction():
    made = fitted(planted(20, 2.0, 0), planted(20, 0.0, 1), space="z", estimator="means")
    features = planted(3, 0.0, 2)
    moved = features + 2.5 * made.unit * made.vector
    torch.testing.assert_close(
        scores(made, moved), scores(made, features) + 2.5 * made.unit, rtol=0, atol=1e-5
    )


def test_equal_sets_and_sets_without_variety_are_refused():
    same = planted(10, 0.0, 0)
    with pytest.raises(UserError, match="equal means"):
        fitted(same, same, space="z", estimator="means")
    with pytest.raises(UserError, match="all alike"):
        fitted(torch.ones(10, *SHAPE), torch.zeros(10, *SHAPE), space="z", estimator="means")
