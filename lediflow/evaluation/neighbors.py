"""Nearest neighbours of embeddings: precision, recall, density and coverage, and tests for copies of training images.

Distances are computed in float64, tile by tile: each pair of tiles by the rank that owns the first, with the same
shapes on any number of ranks, and only the smallest values are kept. No rank holds a matrix of all pairs.
|a - b|^2 = |a|^2 + |b|^2 - 2 a.b leaves rounding error where a = b; values below `SAME_PLACE` are set to 0, so copies
have distance 0.

Manifold metrics. Around each image lies a ball that reaches to the k-th nearest other image of its set. Precision is
the share of samples inside any photograph's ball, recall the share of photographs inside any sample's ball
(Kynkäänniemi et al. 2019, arXiv:1904.06991). Density is the number of photographs' balls that a sample lies in, divided
by k; coverage is the share of photographs whose ball contains a sample (Naeem et al. 2020, arXiv:2002.09797). They
agree with their package prdc, with one difference: points on the surface of a ball are outside, up to the tolerance
`TIE`, so rounding does not decide. Hence an image that occurs k + 1 times has an empty ball. All four depend on the
number of images: compare them at equal counts only.

Memorisation, judged in two ways. A single image is memorised if its nearest training image is less than a third as
far away as the second nearest (Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to
Memorize"; Gu et al. 2023, arXiv:2310.02664; there with pixels, here with features). The whole set contains copies if
samples are closer to the training images than held-out photographs are: the data-copying test of Meehan et al. 2020
(arXiv:2004.05675, here over the whole space at once), a Mann-Whitney U test of both sets of distances. z is about
N(0, 1) for fresh draws of the same distribution, far below 0 for copies, and above 0 for samples unlike any photograph.
Samples of low variety (a low temperature) are also closer than photographs: look at the closest pairs before calling
them copies. Training images that occur twice hide their copies from the first test, except exact ones, whose ratio is
0. Copies are found only if they are near in feature space: EfficientNet-Lite0 finds mirrored ones, but not copies with
some noise or blur.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.tiles import Rows, place, tiles, visits

# relative to |a|^2 + |b|^2: above float64's rounding in thousands of dimensions, at float32 features' precision
SAME_PLACE = 1e-13
NEIGHBORS = 5  # as in Naeem et al.
TIE = 1e-9  # squared distances closer than this, relatively, are equal
MEMORISED_RATIO = 1 / 3  # nearest over second nearest, below which an image is memorised
# of memorised images, above the share among held-out photographs, which may have duplicates
FLAGGED_SHARE = 0.01
FLAGGED_Z = -3.0  # 1 in 700 sets of fresh draws of the same distribution is below
# share_closer above which z counts: with many images any small difference is significant
FLAGGED_CLOSER = 0.6
CLOSEST_PAIRS = 8  # one row of pictures


class PairOfTiles(NamedTuple):
    """A tile of this rank's rows against a tile of any rank."""

    own: slice  # place of the tile's rows in the whole set
    other: slice
    squared: Float[Tensor, "rows columns"]  # distances


def pairs_of_tiles(rows: Rows, others: Rows, group: Group) -> Iterator[PairOfTiles]:
    """This rank's rows against all rows of another set; every rank must exhaust the iterator."""
    for block in visits(others, group):
        for other_number, columns in tiles(block):
            other = place(other_number, columns)
            for number, own in tiles(rows):
                yield PairOfTiles(place(number, own), other, squared_distances(own, columns))


def squared_distances(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
) -> Float[Tensor, "rows columns"]:
    """|a - b|^2 of every pair; 0 where the difference is within rounding."""
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    squared = torch.addmm(norms, a, b.T, alpha=-2)
    return torch.where(squared <= SAME_PLACE * norms, 0.0, squared)  # NaN stays NaN


def squared_radii(rows: Rows, group: Group, neighbors: int) -> Float[Tensor, " n"]:
    """Squared distance from each row to its k-th nearest other row; every rank gets all of them."""
    nearest = torch.full((rows.total, neighbors), torch.inf, dtype=torch.float64, device=rows.values.device)
    for own, other, squared in pairs_of_tiles(rows, rows, group):
        if own == other:
            squared.fill_diagonal_(torch.inf)  # an image is not its own neighbour
        candidates = torch.cat([nearest[own], squared], dim=1)
        nearest[own] = candidates.topk(neighbors, largest=False).values  # in increasing order
    return all_gather_rows(nearest[:, -1], rows, group)


class Nearest(NamedTuple):
    """The nearest rows of another set, for each row of one set."""

    distance: Float[Tensor, " n"]  # to the nearest
    number: Int64[Tensor, " n"]  # of the nearest; the lowest if several are equally near
    second: Float[Tensor, " n"]  # distance to the second nearest


def nearest_two(rows: Rows, others: Rows, group: Group) -> Nearest:
    """The two nearest of `others` for each row; every rank gets the result for all rows."""
    unknown = torch.full((rows.total,), torch.inf, dtype=torch.float64, device=rows.values.device)
    first, second, number = unknown, unknown.clone(), unknown.clone()
    for own, other, squared in pairs_of_tiles(rows, others, group):
        column = squared.argmin(dim=1, keepdim=True)
        near, found = squared.gather(1, column).squeeze(1), column.squeeze(1) + other.start
        next_near = squared.scatter_(1, column, torch.inf).amin(dim=1)
        is_nearer = (near < first[own]) | ((near == first[own]) & (found < number[own]))
        loser = torch.maximum(near, first[own])
        second[own] = torch.stack([second[own], next_near, loser]).amin(dim=0)
        first[own] = torch.where(is_nearer, near, first[own])
        number[own] = torch.where(is_nearer, found.double(), number[own])  # exact: far below 2^53
    first, second, number = (all_gather_rows(values, rows, group) for values in (first, second, number))
    return Nearest(first.sqrt(), number.long(), second.sqrt())


def all_gather_rows(values: Float[Tensor, " n"], rows: Rows, group: Group) -> Float[Tensor, " n"]:
    """All ranks' values of their own rows, joined, on the CPU."""
    own = slice(rows.first, rows.first + len(rows.values))
    placed = torch.zeros_like(values)
    placed[own] = values[own]
    return group.sum(placed)


def manifold_metrics(
    reference: Rows, samples: Rows, group: Group, neighbors: int = NEIGHBORS
) -> dict[str, float]:
    """Precision, recall, density and coverage of samples relative to reference photographs."""
    check_counts(reference.total, samples.total, neighbors)
    device = reference.values.device
    reference_radii, sample_radii = (
        squared_radii(rows, group, neighbors).to(device) for rows in (reference, samples)
    )
    # number of photographs' balls that each sample lies in
    balls = torch.zeros(samples.total, dtype=torch.int64, device=device)
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
    """Whether squared distances are below the squared radii by more than rounding."""
    return squared < radii * (1 - TIE)


def check_counts(photographs: int, images: int, neighbors: int) -> None:
    """UserError if an image has no k-th neighbour."""
    if neighbors < 1 or min(photographs, images) < neighbors + 1:
        raise UserError(
            f"{neighbors} neighbors of each image were asked for; precision, recall, density and coverage need at "
            f"least 1, and {neighbors + 1} images in each set; found {photographs} photographs and {images} generated "
            "images: add images, or change the number of neighbors"
        )


def nearest_training(training: Rows, held_out: Rows | None, samples: Rows, group: Group) -> dict[str, Any]:
    """Both tests and the closest pairs, for a results file; the second test needs held-out photographs."""
    if training.total < 2:
        raise UserError(
            f"nearest training images: found {training.total} training images, at least 2 needed (the nearest is "
            "measured against the second nearest); take more of the training set"
        )
    near = nearest_two(samples, training, group)
    result: dict[str, Any] = {"training_images": training.total, **summary(near), "closest": closest(near)}
    if held_out is not None and held_out.total:
        photographs = nearest_two(held_out, training, group)
        result["held_out"] = {"images": held_out.total, **summary(photographs)}
        refuse_seen(result["held_out"])
        result |= copying_test(near.distance, photographs.distance)
    reasons = alarms(result)
    return result | {"flag": bool(reasons), "reasons": reasons}


def summary(near: Nearest) -> dict[str, float]:
    """Medians over the images, and the shares that are memorised or identical."""
    ratios = distance_ratios(near)
    return {
        "median_distance": near.distance.quantile(0.5).item(),
        "median_ratio": ratios.quantile(0.5).item(),
        "share_memorised": (ratios < MEMORISED_RATIO).double().mean().item(),
        "share_identical": (near.distance == 0).double().mean().item(),
    }


def refuse_seen(held_out: dict[str, float]) -> None:
    """UserError if most held-out photographs are training images: then they cannot show how close unseen ones are."""
    if held_out["share_identical"] > 0.5:
        raise UserError(
            f"{held_out['share_identical']:.0%} of the {held_out['images']} held-out photographs are training images "
            "too, so copies could not be distinguished from them; hold out photographs that were not trained on"
        )


def distance_ratios(near: Nearest) -> Float[Tensor, " n"]:
    """Nearest over second-nearest distance; 0 for an exact copy of an image that occurs twice."""
    return torch.where(near.second > 0, near.distance / near.second, 0.0)


def closest(near: Nearest, count: int = CLOSEST_PAIRS) -> dict[str, list[Any]]:
    """The closest pairs of a sample and a training image, by number, for inspection."""
    order = near.distance.sort(stable=True).indices[:count]
    return {
        "samples": order.tolist(),
        "training": near.number[order].tolist(),
        "distances": near.distance[order].tolist(),
        "ratios": distance_ratios(near)[order].tolist(),
    }


def copying_test(samples: Float[Tensor, " n"], held_out: Float[Tensor, " m"]) -> dict[str, float]:
    """Mann-Whitney z of the samples' distances against the photographs', and the size of the effect.

    `share_closer` is the probability that a sample is closer than a photograph: 0.5 if they are alike, 1 for copies.
    """
    n, m = len(samples), len(held_out)
    sorted_held_out = held_out.sort().values
    below, up_to = (torch.searchsorted(sorted_held_out, samples, right=right) for right in (False, True))
    further = (below + up_to).sum().item() / 2  # U: pairs in which the sample is farther; ties count half
    _, ties = torch.cat([samples, held_out]).unique(return_counts=True)
    tied = (ties.double() ** 3 - ties).sum().item() / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - tied)
    z = (further - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0
    return {"copying_z": z, "share_closer": 1 - further / (n * m)}


def alarms(result: dict[str, Any]) -> list[str]:
    """Reasons why the samples look like copies; empty if they do not."""
    share, usual = result["share_memorised"], result.get("held_out", {}).get("share_memorised", 0.0)
    z, closer = result.get("copying_z", 0.0), result.get("share_closer", 0.5)
    reasons = []
    if share > usual + FLAGGED_SHARE:
        compared = f", and {usual:.1%} of held-out photographs" if "held_out" in result else ""
        reasons.append(
            f"{share:.1%} of the images are less than a third as far from a training image as from the next{compared}"
        )
    if z < FLAGGED_Z and closer > FLAGGED_CLOSER:
        reasons.append(
            f"images are closer to training images than held-out photographs are in {closer:.1%} of the pairs of an "
            f"image and a photograph (z = {z:.1f})"
        )
    return reasons
