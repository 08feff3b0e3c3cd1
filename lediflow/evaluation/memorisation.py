"""Are generated images copies of training images? Distances to the nearest one, judged in two ways.

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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.distances.rows import Rows
from lediflow.evaluation.nearest import Nearest, nearest_two

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
