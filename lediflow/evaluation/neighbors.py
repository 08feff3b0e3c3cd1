"""How two sets of embeddings cover each other: precision, recall, density and coverage.

Around each image lies a ball that reaches to the k-th nearest other image of its own set. Precision is the share of
samples that lie in any photograph's ball, recall the share of photographs that lie in any sample's ball (Kynkäänniemi
et al. 2019, arXiv:1904.06991). Density is the number of photographs' balls that a sample lies in, over k; coverage is
the share of photographs whose ball holds a sample (Naeem et al. 2020, arXiv:2002.09797). All as their package prdc has
them, with one difference: what lies on a ball's surface is outside, and `TIE` decides that, not rounding. Hence an
image that is there k + 1 times has an empty ball.

All four depend on the number of images: compare them at equal counts only.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.distances.rows import Rows
from lediflow.evaluation.nearest import pairs_of_tiles, squared_radii

NEIGHBORS = 5  # what Naeem et al. use
TIE = 1e-9  # squared distances closer than this, relatively, are equal


def manifold_metrics(
    reference: Rows, samples: Rows, group: Group, neighbors: int = NEIGHBORS
) -> dict[str, float]:
    """Precision, recall, density and coverage of samples among reference photographs."""
    check_counts(reference.total, samples.total, neighbors)
    device = reference.values.device
    reference_radii, sample_radii = (
        squared_radii(rows, group, neighbors).to(device) for rows in (reference, samples)
    )
    balls = torch.zeros(samples.total, dtype=torch.int64, device=device)  # of photographs, around each sample
    is_recalled = torch.zeros(reference.total, dtype=torch.bool, device=device)
    is_covered = is_recalled.clone()
    for own, other, squared in pairs_of_tiles(reference, samples, group):
        is_near = inside(squared, reference_radii[own, None])
        balls[other] += is_near.sum(dim=0)
        is_covered[own] |= is_near.any(dim=1)
        is_recalled[own] |= inside(squared, sample_radii[None, other]).any(dim=1)
    balls_of_all = group.sum(balls)
    return {
        "precision": (balls_of_all > 0).double().mean().item(),
        "recall": group.sum(is_recalled).mean().item(),
        "density": balls_of_all.mean().item() / neighbors,
        "coverage": group.sum(is_covered).mean().item(),
    }


def inside(
    squared: Float[Tensor, "rows columns"], radii: Float[Tensor, "..."]
) -> Bool[Tensor, "rows columns"]:
    """Nearer than the radius, by more than rounding; both are squared."""
    return squared < radii * (1 - TIE)


def check_counts(photographs: int, images: int, neighbors: int) -> None:
    """Every image needs a k-th neighbour."""
    if neighbors < 1 or min(photographs, images) < neighbors + 1:
        raise UserError(
            f"{neighbors} neighbors of each image were asked for; precision, recall, density and coverage need at "
            f"least 1, and {neighbors + 1} images in each set; found {photographs} photographs and {images} generated "
            "images: add images, or change the number of neighbors"
        )
