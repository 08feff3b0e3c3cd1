"""Fréchet distance of Gaussians, against closed forms and against scipy's matrix square root."""

from importlib import import_module

import numpy as np
import pytest
import torch

from lediflow.compat import fix_torchvision
from lediflow.engine.group import Group
from lediflow.evaluation.frechet import common_grid, feature_statistics, frechet_distance, on_grid
from lediflow.evaluation.tiles import whole


def features(count: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixing + shift


def by_scipy(one: torch.Tensor, other: torch.Tensor) -> float:
    """The formula of the FID paper, with the square root of the product itself."""
    sqrtm = import_module("scipy.linalg").sqrtm
    x, y = one.numpy(), other.numpy()
    c_1, c_2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c_1 + c_2 - 2 * sqrtm(c_1 @ c_2).real)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return frechet_distance(*feature_statistics(one), *feature_statistics(other))


def test_distance_agrees_with_the_matrix_square_root_of_scipy():
    one, other = features(300, 20, seed=0), features(200, 20, seed=1, shift=0.5)
    assert distance(one, other) == pytest.approx(by_scipy(one, other), rel=1e-9)


def test_distance_is_the_fid_of_torch_fidelity():
    fix_torchvision()
    fid = import_module("torch_fidelity.metric_fid")
    one, other = features(300, 20, seed=4), features(250, 20, seed=5, shift=0.5)
    statistics = (fid.fid_features_to_statistics(x) for x in (one, other))
    expected = fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert distance(one, other) == pytest.approx(expected[fid.KEY_METRIC_FID], rel=1e-6)


def test_one_dimension_has_the_closed_form():
    value = frechet_distance(
        torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([4.0]), torch.tensor([[25.0]])
    )
    assert value == pytest.approx((1 - 4) ** 2 + (2 - 5) ** 2, abs=1e-12)


def test_covariances_that_commute_have_the_closed_form():
    mean, deviations = torch.zeros(3), (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.0]))
    value = frechet_distance(mean, deviations[0].square().diag(), mean, deviations[1].square().diag())
    assert value == pytest.approx((deviations[0] - deviations[1]).square().sum().item(), abs=1e-12)


@pytest.mark.parametrize("decades", [2, 6, 9, 14])
def test_small_variances_keep_their_digits(decades):
    """Features have variances over many decades; rotated covariances that commute have the closed form."""
    rotation, _ = torch.linalg.qr(features(100, 100, seed=8))
    one = torch.logspace(0, -decades, 100, dtype=torch.float64)
    other = torch.logspace(0.2, -decades - 0.5, 100, dtype=torch.float64)
    mean = torch.zeros(100)
    covariances = ((rotation * variances) @ rotation.T for variances in (one, other))
    value = frechet_distance(mean, next(covariances), mean, next(covariances))
    assert value == pytest.approx((one.sqrt() - other.sqrt()).square().sum().item(), rel=1e-9)


def test_a_singular_covariance_gives_a_distance_of_zero_to_itself():
    few = features(10, 40, seed=2)
    assert distance(few, few.clone()) == pytest.approx(0, abs=1e-9)


def test_statistics_are_those_of_numpy():
    few = features(50, 6, seed=3)
    mean, covariance = feature_statistics(few)
    np.testing.assert_allclose(mean, few.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(few.numpy(), rowvar=False), rtol=1e-12, atol=1e-12)


def test_statistics_of_several_tiles_far_from_zero_are_those_of_numpy():
    many = features(2500, 6, seed=6, shift=100.0)
    many[:, 2] = 7.0  # never varies
    mean, covariance = feature_statistics(whole(many), Group())
    np.testing.assert_allclose(mean, many.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(many.numpy(), rowvar=False), rtol=1e-10, atol=1e-12)


def test_scatter_matrices_on_the_grid_add_up_to_the_same_bits_in_any_order():
    generator = torch.Generator().manual_seed(7)
    parts = torch.randn(40, 30, 5, generator=generator, dtype=torch.float64) * torch.logspace(-9, 9, 5)
    grid = common_grid(parts.square().sum(dim=(0, 1)))
    scatters = [on_grid(part.T @ part, grid) for part in parts]
    forwards, backwards = sum(scatters), sum(reversed(scatters))
    assert torch.equal(forwards, backwards)
    expected = torch.einsum("pni,pnj->ij", parts, parts)
    scale = expected.diag().sqrt().outer(expected.diag().sqrt())
    assert ((forwards - expected).abs() / scale).max() < 1e-14


def test_a_single_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 images"):
        feature_statistics(torch.zeros(1, 4))
