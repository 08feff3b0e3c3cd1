"""Fréchet distance of Gaussians, against closed forms and against scipy's matrix square root."""

from importlib import import_module

import numpy as np
import pytest
import torch

from lediflow.evaluation.frechet import feature_statistics, frechet_distance


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


def test_one_dimension_has_the_closed_form():
    value = frechet_distance(
        torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([4.0]), torch.tensor([[25.0]])
    )
    assert value == pytest.approx((1 - 4) ** 2 + (2 - 5) ** 2, abs=1e-12)


def test_covariances_that_commute_have_the_closed_form():
    mean, deviations = torch.zeros(3), (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.0]))
    value = frechet_distance(mean, deviations[0].square().diag(), mean, deviations[1].square().diag())
    assert value == pytest.approx((deviations[0] - deviations[1]).square().sum().item(), abs=1e-12)


def test_fewer_images_than_features_give_no_distance_to_themselves():
    few = features(10, 40, seed=2)
    assert distance(few, few.clone()) == pytest.approx(0, abs=1e-9)


def test_statistics_are_those_of_numpy():
    few = features(50, 6, seed=3)
    mean, covariance = feature_statistics(few)
    np.testing.assert_allclose(mean, few.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(few.numpy(), rowvar=False), rtol=1e-12, atol=1e-12)


def test_a_single_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 images"):
        feature_statistics(torch.zeros(1, 4))
