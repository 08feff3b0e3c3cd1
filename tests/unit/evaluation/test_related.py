"""The MMD of images made from real ones, against its definition: means over the pairs that count, one left out."""

import numpy as np
import pytest
import torch

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import cmmd_estimate
from lediflow.evaluation.features import unit
from lediflow.evaluation.related import Measure
from lediflow.evaluation.tiles import whole

DIM = 6


class Features:
    """A set of features in memory."""

    def __init__(self, values):
        self.values, (self.count, self.dim) = values, values.shape

    def slice(self, numbers):
        return self.values[numbers.start : numbers.stop]

    def at(self, wanted):
        return self.values[torch.from_numpy(wanted)]

    def rows(self, group, device="cpu"):
        return whole(self.values)


class Real:
    """A reference of some of the features."""

    def __init__(self, values, chosen):
        self.features, self.chosen = Features(values), chosen

    def rows(self, group, device):
        return whole(self.features.at(self.chosen))


def sets(images=13, real=9, seed=0):
    random = torch.Generator().manual_seed(seed)
    made, photographs = (torch.randn(count, DIM, generator=random) for count in (images, real))
    return made, photographs + 0.5


def kernel(a, b):
    """1000 (k - 1) of unit vectors, the constant cancels."""
    a, b = (value.double() / value.double().norm() for value in (a, b))
    return 1000 * (torch.exp(-(a - b).square().sum() / 200) - 1).item()


def by_definition(made, sources, real, chosen):
    """Means over pairs of different sources, pairs of different photographs, and images with others' photographs."""
    across_x = [
        kernel(made[i], made[j])
        for i in range(len(made))
        for j in range(len(made))
        if sources[i] != sources[j]
    ]
    across_y = [kernel(real[i], real[j]) for i in chosen for j in chosen if i != j]
    both = [kernel(made[i], real[j]) for i in range(len(made)) for j in chosen if sources[i] != j]
    return np.mean(across_x) + np.mean(across_y) - 2 * np.mean(both)


def measured(made, sources, real, chosen):
    return Measure.build(Real(real, chosen), Group(), "cpu")(Features(made), sources)


@pytest.mark.parametrize("chosen", [np.arange(9), np.array([1, 2, 5, 8])], ids=["all", "some"])
def test_pairs_with_one_source_are_left_out(chosen):
    made, real = sets()
    sources = np.array([0, 2, 5, 7, 8])[np.arange(len(made)) % 5]
    found = measured(made, sources, real, chosen)
    assert found.unbiased == pytest.approx(by_definition(made, sources, real, chosen), rel=1e-9)


def test_the_standard_error_is_the_jackknifes_over_sources_and_photographs():
    made, real = sets()
    sources, chosen = np.array([0, 2, 5, 7, 12])[np.arange(len(made)) % 5], np.arange(9)
    left_out = []
    for source in np.unique(sources):
        kept = sources != source
        left_out.append(by_definition(made[torch.from_numpy(kept)], sources[kept], real, chosen))
    without_real = [by_definition(made, sources, real, chosen[chosen != number]) for number in chosen]
    expected = sum((len(values) - 1) * np.var(values) for values in (left_out, without_real))
    assert measured(made, sources, real, chosen).standard_error == pytest.approx(expected**0.5, rel=1e-9)


def test_images_with_one_source_each_have_the_plain_estimate():
    made, real = sets()
    found = measured(made, 100 + np.arange(len(made)), real, np.arange(9))
    plain = cmmd_estimate(whole(unit(made.double())), whole(unit(real.double())), Group())
    assert found.unbiased == pytest.approx(plain.unbiased, rel=1e-12)
    assert found.interval() == pytest.approx(plain.interval(), rel=1e-12)
    assert measured(made, None, real, np.arange(9)).interval() == plain.interval()


def test_several_images_per_source_do_not_bias_the_distance():
    """Few sources drawn often: the plain estimate counts their copies as a fault, this one does not."""
    random = torch.Generator().manual_seed(1)
    pool = torch.randn(4000, DIM, generator=random)
    plain, own = [], []
    for trial in range(100):
        few, real = pool[trial * 40 : trial * 40 + 5], pool[trial * 40 + 5 : trial * 40 + 40]
        made, sources = few.repeat(8, 1), 1000 + np.arange(40) % 5
        plain.append(measured(made, None, real, np.arange(35)).unbiased)
        own.append(measured(made, sources, real, np.arange(35)).unbiased)
    error = np.std(own) / 10
    assert abs(np.mean(own)) < 3 * error
    assert np.mean(plain) > 10 * error


def test_too_few_sources_are_refused():
    made, real = sets()
    with pytest.raises(ValueError, match="images of 2 sources"):
        measured(made, np.arange(len(made)) % 2, real, np.arange(9))
