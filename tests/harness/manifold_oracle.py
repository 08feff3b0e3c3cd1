"""Precision, recall, density and coverage by their definitions, with whole matrices of distances.

Formula by formula what `prdc.compute_prdc` (prdc 0.2) computes; scipy makes the distances.
"""

import numpy as np
from scipy.spatial.distance import cdist


def prdc(real: np.ndarray, fake: np.ndarray, nearest_k: int) -> dict[str, float]:
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_radii, fake_radii = radii(real, nearest_k), radii(fake, nearest_k)
    distances = cdist(real, fake)
    return {
        "precision": (distances < real_radii[:, None]).any(axis=0).mean(),
        "recall": (distances < fake_radii[None, :]).any(axis=1).mean(),
        "density": (distances < real_radii[:, None]).sum(axis=0).mean() / nearest_k,
        "coverage": (distances.min(axis=1) < real_radii).mean(),
    }


def radii(x: np.ndarray, nearest_k: int) -> np.ndarray:
    """To the k-th nearest; the nearest of all is the row itself, at distance 0."""
    return np.sort(cdist(x, x), axis=1)[:, nearest_k]
