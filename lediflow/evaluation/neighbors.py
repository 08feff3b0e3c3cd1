"""Nearest neighbours between two sets of embeddings that are spread over the ranks.

Distances are float64 and made tile by tile; each pair of tiles is computed by the rank that owns the first, with the
same shapes whatever the number of ranks, and only smallest values are kept. No rank holds a matrix of all pairs.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b leaves some rounding where a = b. It is cut off there (`SAME_PLACE`): copies are at
distance 0.

How two sets of embeddings cover each other: precision, recall, density and coverage.

Around each image lies a ball that reaches to the k-th nearest other image of its own set. Precision is the share of
samples that lie in any photograph's ball, recall the share of photographs that lie in any sample's ball (Kynkäänniemi
et al. 2019, arXiv:1904.06991). Density is the number of photographs' balls that a sample lies in, over k; coverage is
the share of photographs whose ball holds a sample (Naeem et al. 2020, arXiv:2002.09797). All as their package prdc has
them, with one difference: what lies on a ball's surface is outside, and `TIE` decides that, not rounding. Hence an
image that is there k + 1 times has an empty ball.

All four depend on the number of images: compare them at equal counts only.

Are generated images copies of training images? Distances to the nearest one, judged in two ways.

One image: it is memorised if its nearest training image is less than a third as far away as the second nearest (Yoon
et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize"; Gu et al. 2023, arXiv:2310.02664,
there of pixels, here of features).

All images: samples that stand closer to the training images than held-out photographs do are copies more or less. The
data-copying test of Meehan et al. 2020 (arXiv:2004.05675, here over the whole space at once) is a Mann-Whitney U test
of the two sets of distances: z is about N(0, 1) for fresh draws of the same distribution, far below 0 for copies, and
above 0 for samples that no photograph is like. Samples of low variety (a low temperature) also stand closer than
photographs: look at the closest pairs before calling them copies.

Training images that are there twice hide their copies from the first test, except for exact ones: those have ratio 0.
And copies are found as far as the features see them as near: EfficientNet-Lite0 finds mirrored ones, and takes a copy
with some noise or blur for an image like no other.
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
from lediflow.evaluation.distances.tiles import Rows, place, tiles, visits

# of |a|^2 + |b|^2: above float64's rounding in thousands of dimensions, at the precision of float32 features
SAME_PLACE = 1e-13


class PairOfTiles(NamedTuple):
    """One tile of a rank's own rows against one of any rank's."""

    own: slice  # where the tile's rows stand in the whole set
    other: slice
    squared: Float[Tensor, "rows columns"]  # distances


def pairs_of_tiles(rows: Rows, others: Rows, group: Group) -> Iterator[PairOfTiles]:
    """This rank's rows against all rows of another set; every rank must run through all of it."""
    for block in visits(others, group):
        for other_number, columns in tiles(block):
            other = place(other_number, columns)
            for number, own in tiles(rows):
                yield PairOfTiles(place(number, own), other, squared_distances(own, columns))


def squared_distances(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
) -> Float[Tensor, "rows columns"]:
    """|a - b|^2 of every pair; 0 where rounding can tell no difference."""
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    squared = torch.addmm(norms, a, b.T, alpha=-2)
    return torch.where(squared <= SAME_PLACE * norms, 0.0, squared)  # what is not a number stays so


def squared_radii(rows: Rows, group: Group, neighbors: int) -> Float[Tensor, " n"]:
    """From each row of a set to its k-th nearest other row, squared; every rank gets those of all rows."""
    nearest = torch.full((rows.total, neighbors), torch.inf, dtype=torch.float64, device=rows.values.device)
    for own, other, squared in pairs_of_tiles(rows, rows, group):
        if own == other:
            squared.fill_diagonal_(torch.inf)  # an image is not its own neighbour
        candidates = torch.cat([nearest[own], squared], dim=1)
        nearest[own] = candidates.topk(neighbors, largest=False).values  # in rising order
    return all_gather_rows(nearest[:, -1], rows, group)


class Nearest(NamedTuple):
    """Of each row of one set, in the other set."""

    distance: Float[Tensor, " n"]  # to the nearest
    number: Int64[Tensor, " n"]  # of the nearest; the lowest if several are there
    second: Float[Tensor, " n"]  # distance to the second nearest


def nearest_two(rows: Rows, others: Rows, group: Group) -> Nearest:
    """The two nearest of `others` to each row; every rank gets those of all rows."""
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
    """Each rank's values of its own rows, put together, on the CPU."""
    own = slice(rows.first, rows.first + len(rows.values))
    placed = torch.zeros_like(values)
    placed[own] = values[own]
    return group.sum(placed)


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


MEMORISED_RATIO = 1 / 3  # nearest over second nearest, below which an image is memorised
FLAGGED_SHARE = 0.01  # of memorised images, beyond that of held-out photographs, which may have doubles too
FLAGGED_Z = -3.0  # fresh draws of the same distribution come below once in 700 sets
FLAGGED_CLOSER = 0.6  # share_closer above which z counts: of many images any small difference is significant
CLOSEST_PAIRS = 8  # as many as one row of pictures shows


def nearest_training(training: Rows, held_out: Rows | None, samples: Rows, group: Group) -> dict[str, Any]:
    """Both judgements and the closest pairs, ready for a results file; held-out photographs make the second one."""
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
    """Medians over the images, and the share that is memorised."""
    ratios = distance_ratios(near)
    return {
        "median_distance": near.distance.quantile(0.5).item(),
        "median_ratio": ratios.quantile(0.5).item(),
        "share_memorised": (ratios < MEMORISED_RATIO).double().mean().item(),
        "share_identical": (near.distance == 0).double().mean().item(),
    }


def refuse_seen(held_out: dict[str, float]) -> None:
    """Photographs that were trained on say nothing about how close unseen ones are."""
    if held_out["share_identical"] > 0.5:
        raise UserError(
            f"{held_out['share_identical']:.0%} of the {held_out['images']} held-out photographs are training images "
            "too, so no copy could be told from them; hold out photographs that were not trained on"
        )


def distance_ratios(near: Nearest) -> Float[Tensor, " n"]:
    """Nearest over second nearest; 0 for an exact copy of an image that is there twice."""
    return torch.where(near.second > 0, near.distance / near.second, 0.0)


def closest(near: Nearest, count: int = CLOSEST_PAIRS) -> dict[str, list[Any]]:
    """The pairs of a sample and a training image that are closest, by their numbers; to be looked at."""
    order = near.distance.sort(stable=True).indices[:count]
    return {
        "samples": order.tolist(),
        "training": near.number[order].tolist(),
        "distances": near.distance[order].tolist(),
        "ratios": distance_ratios(near)[order].tolist(),
    }


def copying_test(samples: Float[Tensor, " n"], held_out: Float[Tensor, " m"]) -> dict[str, float]:
    """Mann-Whitney's z of the samples' distances against the photographs', and the size of the effect.

    `share_closer` is the chance that a sample is closer than a photograph: 0.5 if they are alike, 1 for copies.
    """
    n, m = len(samples), len(held_out)
    sorted_held_out = held_out.sort().values
    below, up_to = (torch.searchsorted(sorted_held_out, samples, right=right) for right in (False, True))
    further = (below + up_to).sum().item() / 2  # U: pairs in which the sample is further, ties by half
    _, ties = torch.cat([samples, held_out]).unique(return_counts=True)
    tied = (ties.double() ** 3 - ties).sum().item() / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - tied)
    z = (further - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0
    return {"copying_z": z, "share_closer": 1 - further / (n * m)}


def alarms(result: dict[str, Any]) -> list[str]:
    """Sentences that say why the samples look like copies; none if they do not."""
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
