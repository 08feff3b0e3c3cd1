"""Paired comparison of two runs: the verdict is right about as often as it says."""

import dataclasses
import math

import pytest
import torch

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.cmmd import cmmd_estimate
from lediflow.evaluation.metrics import Influence
from lediflow.evaluation.modes.compare import MeasuredRun, compare, read_influences, write_influences
from lediflow.evaluation.tiles import whole

RECORD = {"reference": "1f0c", "features": "efficientnet-lite0", "seed": 0, "count": 60}
SIGMA_SQUARED = 4.0


def draws(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.exp(-torch.cdist(x, y).square() / (2 * SIGMA_SQUARED))


def unbiased_mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    """By its definition."""
    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return (within - 2 * kernel(x, y).mean()).item()


def influence(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(n - 1) (mean - value) of the estimates that leave out one x: the jackknife's deviations, by row sums."""
    n, m = len(x), len(y)
    within, across = kernel(x, x).sum(dim=1) - 1, kernel(x, y).sum(dim=1)
    left = (within.sum() - 2 * within) / (n - 2) - 2 * (across.sum() - across) / m
    return left.mean() - left  # (n - 1) times a mean over n - 1


def measured(x: torch.Tensor, y: torch.Tensor) -> MeasuredRun:
    return MeasuredRun(unbiased_mmd(x, y), influence(x, y), influence(y, x), dict(RECORD))


@pytest.fixture(scope="module")
def good() -> MeasuredRun:
    return measured(draws(60, 3, seed=0), draws(70, 3, seed=1))


def test_a_run_against_itself_is_undecided_and_the_interval_is_a_point(good):
    result = compare(good, good)
    assert (result.interval, result.verdict) == ((0.0, 0.0), "undecided")


def test_a_clearly_worse_run_gets_worse_and_the_other_way_round_better(good):
    bad = measured(draws(60, 3, seed=0) + 1.0, draws(70, 3, seed=1))
    assert compare(bad, good).verdict == "worse"
    assert compare(good, bad).verdict == "better"
    assert compare(good, bad).difference == -compare(bad, good).difference < 0


def test_standard_error_is_the_jackknifes_of_the_difference():
    """Leave out a pair of samples, or a photograph, and look at how the difference moves."""
    noise, y = draws(12, 3, seed=2), draws(9, 3, seed=3)
    a, b = noise + 0.5, noise * 1.2
    without_pair = [unbiased_mmd(a[kept], y) - unbiased_mmd(b[kept], y) for kept in all_but_one(12)]
    without_photograph = [unbiased_mmd(a, y[kept]) - unbiased_mmd(b, y[kept]) for kept in all_but_one(9)]
    variance = sum(
        (len(values) - 1) ** 2 / len(values) * torch.tensor(values, dtype=torch.float64).var().item()
        for values in (without_pair, without_photograph)
    )
    found = compare(measured(a, y), measured(b, y))
    assert found.standard_error == pytest.approx(variance**0.5, rel=1e-9)


def test_estimates_of_cmmd_are_compared_as_those_of_the_definition():
    noise, y = draws(60, 3, seed=8), draws(70, 3, seed=9)
    sets = noise + 0.5, noise * 1.2
    estimates = (
        cmmd_estimate(whole(x), whole(y), Group(), sigma=math.sqrt(SIGMA_SQUARED), scale=1) for x in sets
    )
    runs = (MeasuredRun(e.unbiased, e.influence_x, e.influence_y, RECORD) for e in estimates)
    found, expected = compare(*runs), compare(*(measured(x, y) for x in sets))
    assert found.interval == pytest.approx(expected.interval, rel=1e-9)


def all_but_one(count: int) -> list[torch.Tensor]:
    return [torch.arange(count) != i for i in range(count)]


def test_paired_errors_are_smaller_than_separate_ones():
    noise, y = draws(60, 3, seed=4) + 1.0, draws(70, 3, seed=5)
    a, b = measured(noise, y), measured(noise * 1.02, y)
    alone = [(run.influence_x.var() / 60 + run.influence_y.var() / 70).sqrt().item() for run in (a, b)]
    assert compare(a, b).standard_error < 0.2 * min(alone)


def mmd_of_shifted_normals(shift: float, dim: int = 3) -> float:
    """Between N(0, I) and N(shift, I): what the estimates estimate."""
    peak = (SIGMA_SQUARED / (SIGMA_SQUARED + 2)) ** (dim / 2)
    return 2 * peak * (1 - math.exp(-dim * shift**2 / (2 * (SIGMA_SQUARED + 2))))


def test_the_interval_holds_the_true_difference_in_about_95_of_100_draws():
    truth = mmd_of_shifted_normals(0.6) - mmd_of_shifted_normals(0.5)
    held = 0
    for seed in range(400):
        y, noise = draws(90, 3, seed=1000 + seed), draws(80, 3, seed=2000 + seed)
        other = 0.8 * noise + 0.6 * draws(80, 3, seed=3000 + seed)  # correlated, as images from one seed are
        low, high = compare(measured(noise + 0.6, y), measured(other + 0.5, y)).interval
        held += low < truth < high
    assert held / 400 == pytest.approx(0.95, abs=0.035)  # 3 standard errors of a share of 400


@pytest.mark.parametrize(
    ("key", "other"),
    [("reference", "77aa"), ("seed", 5), ("count", 61), ("features", "clip-vit-l14-336")],
)
def test_runs_that_were_measured_differently_are_refused_with_both_sides(good, key, other):
    changed = dataclasses.replace(good, record=RECORD | {key: other})
    with pytest.raises(UserError) as refused:
        compare(good, changed)
    assert f"{key}: {RECORD[key]!r} and {other!r}" in str(refused.value)


def test_runs_with_other_numbers_of_samples_are_refused(good):
    with pytest.raises(UserError, match="samples: 60 and 59"):
        compare(good, dataclasses.replace(good, influence_x=good.influence_x[1:]))


def test_pairs_read_from_a_file_compare_equally(good, tmp_path):
    influence_of = Influence(good.unbiased, good.influence_x, good.influence_y)
    write_influences(tmp_path / "run" / "influence.safetensors", {"mmd": influence_of}, good.record)
    back = read_influences(tmp_path / "run" / "influence.safetensors")["mmd"]
    assert (back.unbiased, back.record) == (good.unbiased, good.record)
    assert compare(good, back).interval == (0.0, 0.0)


def test_a_run_that_was_not_evaluated_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="evaluate that run first"):
        read_influences(tmp_path / "nothing")
