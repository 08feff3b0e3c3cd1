"""The MMD of images that were generated from real ones, several of which may have the same source.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    x, x' of different sources, y not the source of x

Two images from one real image are similar, and an image is similar to its source. Including such pairs in the means
would bias the MMD: upwards for few sources, downwards for images made from the reference. The sources are the
independent draws, so the jackknife (Efron & Stein 1981) leaves out one source with all its images. Where every image
has a source of its own that is not among the reference, these are the unbiased estimate and its interval of
`evaluation.mmd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import SCALE, SIGMA
from lediflow.evaluation.embedding import ChosenFeatures, FeatureSet, Numbers
from lediflow.evaluation.features import unit
from lediflow.evaluation.metrics import unit_rows
from lediflow.evaluation.mmd import (
    FEWEST,
    Estimate,
    Gaussian,
    KernelSums,
    Within,
    across,
    biased_mmd,
    mean_of_pairs,
    total,
    within,
)
from lediflow.evaluation.mmd import estimate as plain_estimate
from lediflow.evaluation.references import Reference
from lediflow.evaluation.tiles import Rows, check_sets

Sums = Float[Tensor, " images"]


class Related(NamedTuple):
    """For each image, the kernel values with images of the same source, which are subtracted from the sums."""

    groups: Int64[Tensor, " images"]  # number of its source, 0 ... sources - 1
    siblings: Sums  # kernel summed over the other images of its source
    own: Sums  # kernel with its source, 0 where that is not among the reference
    place: Int64[Tensor, " images"]  # of its source among the reference; -1: it is not there


@dataclass(frozen=True)
class Measure:
    """A reference whose own sums are computed once for all sets that are compared with it."""

    reference: Reference
    real: Rows  # of unit length, this rank's share
    own: Within
    group: Group

    @classmethod
    def build(cls, reference: Reference, group: Group, device: torch.device | str) -> Measure:
        real = unit_rows(reference.rows(group, device))
        return cls(reference, real, within(real, Gaussian(SIGMA), group), group)

    def __call__(self, made: FeatureSet | ChosenFeatures, sources: Numbers | None = None) -> Estimate:
        """The unbiased squared MMD, times 1000; `sources`: numbers of the real samples that the images come from."""
        images = unit_rows(made.rows(self.group, self.real.values.device))
        check_sets(images, self.real, self.group)
        kernel = Gaussian(SIGMA)
        sums = KernelSums(
            within(images, kernel, self.group), self.own, across(images, self.real, kernel, self.group)
        )
        if sources is None:
            return plain_estimate(sums, SCALE)
        found: Related | None = None
        with self.group.together("comparing images with their sources"):
            if self.group.is_first:
                found = related(made, self.reference, sources)
        return estimate_by_source(sums, self.group.broadcast(found), SCALE)


def related(made: FeatureSet | ChosenFeatures, reference: Reference, sources: Numbers) -> Related:
    """Images of the same source, and sources, of all images; one rank reads them from the files."""
    kernel = Gaussian(SIGMA)
    x = unit(made.slice(range(made.count)).double())
    _, groups = np.unique(sources, return_inverse=True)
    siblings = torch.zeros(len(x), dtype=torch.float64)
    if groups.max() + 1 < len(groups):
        order = np.argsort(groups, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            of_one = kernel(x[members], x[members]).fill_diagonal_(0)
            siblings[members] = of_one.sum(dim=1)
    place = np.searchsorted(reference.chosen, sources)
    is_there = reference.chosen[np.minimum(place, len(reference.chosen) - 1)] == sources
    own = torch.zeros(len(x), dtype=torch.float64)
    known = np.flatnonzero(is_there)
    if len(known):
        wanted, back = np.unique(reference.chosen[place[known]], return_inverse=True)
        y = unit(reference.features.at(wanted).double())[back]
        own[known] = ((x[known] - y).square().sum(dim=1) / (-2 * SIGMA**2)).expm1()
    return Related(torch.from_numpy(groups), siblings, own, torch.from_numpy(np.where(is_there, place, -1)))


def estimate_by_source(sums: KernelSums, about: Related, scale: float = 1.0) -> Estimate:
    """Biased and unbiased estimate, times `scale`; the influences of x are per source.

    ValueError for fewer than three sources: the jackknife leaves one out, and two must remain.
    """
    count = int(about.groups.max()) + 1
    if count < FEWEST:
        raise ValueError(f"images of {count} sources: an interval needs {FEWEST} at least")
    sizes = by_group(torch.ones_like(about.own), about.groups, count)
    n, m = len(about.groups), len(sums.across.y)
    is_there = about.place >= 0
    pairs, partners = n**2 - total(sizes.square()), (m - is_there.double())
    others, cross = sums.x.others - about.siblings, sums.across.x - about.own
    within_x, across_xy = total(others) / pairs, total(cross) / total(partners)
    within_y = mean_of_pairs(sums.y)
    value = within_x + within_y - 2 * across_xy

    of_source = by_group(others, about.groups, count)
    pairs_left = (n - sizes).square() - (total(sizes.square()) - sizes.square())
    cross_left = total(cross) - by_group(cross, about.groups, count)
    partners_left = total(partners) - by_group(partners, about.groups, count)
    without = (total(others) - 2 * of_source) / pairs_left + within_y - 2 * cross_left / partners_left
    influence_x = (count - 1) * (value - without)

    matched = torch.zeros(m, dtype=torch.float64)
    found = torch.zeros(m, dtype=torch.float64)
    matched.index_add_(0, about.place[is_there], about.own[is_there])
    found.index_add_(0, about.place[is_there], torch.ones_like(about.own[is_there]))
    own_left = (total(sums.y.others) - 2 * sums.y.others) / ((m - 1) * (m - 2))
    cross_left = total(cross) - (sums.across.y - matched)
    partners_left = total(partners) - (n - found)
    influence_y = (m - 1) * (value - (within_x + own_left - 2 * cross_left / partners_left))
    return Estimate(scale * biased_mmd(sums), scale * value, scale * influence_x, scale * influence_y)


def by_group(values: Sums, groups: Int64[Tensor, " images"], count: int) -> Float[Tensor, " sources"]:
    """Sums of `values` over the images of each source."""
    return torch.zeros(count, dtype=torch.float64).index_add_(0, groups, values)
