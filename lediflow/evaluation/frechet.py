"""Fréchet distance between two sets of features, each summed up by a mean and a covariance.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

On Inception-v3 features this is FID (Heusel et al. 2017, arXiv:1706.08500); on others it is named after them.
tr (C_1 C_2)^(1/2) is computed as tr (C_1^(1/2) C_2 C_1^(1/2))^(1/2): the same number, but of a symmetric
matrix, whose eigenvalues are real and found without iteration.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class FeatureStatistics(NamedTuple):
    """Mean and covariance (divided by n - 1) of a set of features, in float64."""

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]


def feature_statistics(features: Float[Tensor, "n dim"]) -> FeatureStatistics:
    """What the Fréchet distance keeps of a set."""
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, found {len(features)}; add images")
    features = features.double()
    return FeatureStatistics(features.mean(dim=0), features.T.cov())


def frechet_distance(
    mean_1: Float[Tensor, " dim"],
    covariance_1: Float[Tensor, "dim dim"],
    mean_2: Float[Tensor, " dim"],
    covariance_2: Float[Tensor, "dim dim"],
) -> float:
    """d^2 between two Gaussians; 0 if they are the same."""
    mean_1, covariance_1, mean_2, covariance_2 = (
        x.double() for x in (mean_1, covariance_1, mean_2, covariance_2)
    )
    root = matrix_square_root(covariance_1)
    overlap = root_eigenvalues(root @ covariance_2 @ root).sum()
    spread = covariance_1.trace() + covariance_2.trace() - 2 * overlap
    return ((mean_1 - mean_2).square().sum() + spread).item()


def matrix_square_root(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """The symmetric square root of a covariance."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * drop_noise(eigenvalues).sqrt()) @ vectors.T


def root_eigenvalues(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, " dim"]:
    """Square roots of a covariance's eigenvalues."""
    return drop_noise(torch.linalg.eigvalsh((matrix + matrix.T) / 2)).sqrt()


def drop_noise(eigenvalues: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
    """Sets eigenvalues below rounding to 0: with fewer images than features their roots would add up."""
    noise = eigenvalues.abs().amax() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return torch.where(eigenvalues > noise, eigenvalues, 0.0)
