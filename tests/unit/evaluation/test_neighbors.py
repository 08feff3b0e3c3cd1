"""Precision, recall, density and coverage, against prdc's definition written out with whole matrices."""

import numpy as np
import pytest
import torch
from harness.manifold_oracle import prdc
from scipy.spatial.distance import cdist

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.neighbors import manifold_metrics, nearest_two, squared_radii
from lediflow.evaluation.tiles import whole


def normal(count: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator) * scale + shift


def metrics(reference: torch.Tensor, samples: torch.Tensor, neighbors: int = 5) -> dict[str, float]:
    return manifold_metrics(whole(reference), whole(samples), Group(), neighbors)


@pytest.mark.parametrize("neighbors", [1, 5])
@pytest.mark.parametrize("counts", [(1500, 1100), (300, 1025)], ids=str)
def test_all_four_are_those_of_prdc(counts, neighbors):
    reference, samples = normal(counts[0], 8, seed=0), normal(counts[1], 8, seed=1, shift=0.4, scale=0.8)
    expected = prdc(reference.numpy(), samples.numpy(), neighbors)
    assert all(0.02 < value < 1.5 for value in expected.values())  # at an end any code would agree
    assert metrics(reference, samples, neighbors) == pytest.approx(expected, abs=1e-12)


def test_a_known_arrangement_on_a_line():
    photographs = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii 1, 1, 2, 7 with one neighbour
    samples = torch.tensor([[0.5], [2.5], [50.0]])  # in 2 balls, in 1, in none; radii 2, 2, 47.5
    found = metrics(photographs, samples, neighbors=1)
    # 0.5: |0.5-0|<1, |0.5-1|<1, |0.5-3|=2.5>2, no 10: 9.5>7. 2.5: 1.5>1, 0.5<2, 7.5>7.
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx((2 + 1 + 0) / 3)
    assert found["coverage"] == pytest.approx(3 / 4)
    # 0, 1 and 3 are within 2 of a sample; 10 is within 47.5 of 50
    assert found["recall"] == pytest.approx(1.0)


def test_distant_sets_have_precision_and_recall_zero():
    found = metrics(normal(40, 3, seed=2), normal(40, 3, seed=3, shift=1000.0))
    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_copies_on_the_surface_of_a_ball_are_outside_despite_rounding():
    reference = normal(200, 30, seed=4, shift=3.0)
    found = metrics(reference, reference.clone(), neighbors=3)
    # each ball holds its centre and two neighbours; the third is on the surface
    assert found["density"] == pytest.approx(1.0, abs=1e-12)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_images_that_occur_more_than_k_times_have_empty_balls():
    reference = normal(10, 30, seed=5, shift=3.0).repeat_interleave(3, dim=0)
    found = metrics(reference, reference.clone(), neighbors=2)
    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_fewer_images_than_neighbors_and_one_are_refused():
    with pytest.raises(
        UserError, match=r"6 images in each set; found 9 photographs and 5 generated.*add images"
    ):
        metrics(normal(9, 3, seed=6), normal(5, 3, seed=7))
    assert metrics(normal(6, 3, seed=6), normal(6, 3, seed=7))["precision"] >= 0


def test_an_image_has_at_least_one_neighbor():
    with pytest.raises(UserError, match="0 neighbors of each image were asked for"):
        metrics(normal(9, 3, seed=6), normal(9, 3, seed=7), neighbors=0)


def test_radii_are_those_of_sorted_distances():
    x = normal(1100, 6, seed=8)
    distances = np.sort(cdist(x.double().numpy(), x.double().numpy()), axis=1)
    radii = squared_radii(whole(x), Group(), 4).sqrt()
    np.testing.assert_allclose(radii, distances[:, 4], rtol=1e-9)


def test_the_two_nearest_are_those_of_all_pairs():
    x, y = normal(1100, 6, seed=9), normal(2100, 6, seed=10)
    distances = cdist(x.double().numpy(), y.double().numpy())
    found = nearest_two(whole(x), whole(y), Group())
    np.testing.assert_array_equal(found.number, distances.argmin(axis=1))
    ordered = np.partition(distances, 1, axis=1)
    np.testing.assert_allclose(found.distance, ordered[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.second, ordered[:, 1], rtol=1e-9)


def test_the_nearest_of_equal_images_is_the_one_with_the_lowest_number():
    x = normal(5, 40, seed=11, shift=2.0)
    others = torch.cat([normal(1030, 40, seed=12), x, x])  # copies in the second tile
    found = nearest_two(whole(x), whole(others), Group())
    assert found.number.tolist() == [1030, 1031, 1032, 1033, 1034]
    assert found.distance.tolist() == found.second.tolist() == [0.0] * 5
