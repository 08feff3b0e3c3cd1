"""Sums of a kernel over tiles of rows, against loops over single rows; KID against torch-fidelity's."""

from importlib import import_module

import pytest
import torch
from harness.embeddings import clustered, spread

from lediflow.compat import fix_torchvision
from lediflow.engine.group import Group
from lediflow.evaluation.mmd import Gaussian, Polynomial, estimate, kernel_sums, unbiased_mmd
from lediflow.evaluation.tiles import TILE, share, tiles, whole

GROUP = Group()
N, M = 2 * TILE + 77, TILE + 1  # three tiles and two; the last ones are not full


def gaussian(a, rows):
    return torch.exp(-(a - rows).square().sum(dim=1) / (2 * 0.7**2)) - 1


def cubic(a, rows):
    return ((a * rows).sum(dim=1) / len(a) + 1) ** 3


@pytest.fixture(scope="module", params=[spread, clustered], ids=["spread", "clustered"])
def sets(request):
    return request.param(N, 6, seed=1), request.param(M, 6, seed=2)


@pytest.mark.parametrize(("kernel", "by_hand"), [(Gaussian(0.7), gaussian), (Polynomial(), cubic)])
def test_sums_are_those_of_a_loop_over_rows(sets, kernel, by_hand):
    x, y = sets
    sums = kernel_sums(whole(x), whole(y), kernel, GROUP)
    for within, z in ((sums.x, x), (sums.y, y)):
        itself = torch.stack([by_hand(a, a[None])[0] for a in z])
        others = torch.stack([by_hand(a, z).sum() for a in z]) - itself
        torch.testing.assert_close(within.itself, itself, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(within.others, others, rtol=1e-12, atol=1e-9)
    for across, a, b in ((sums.across.x, x, y), (sums.across.y, y, x)):
        torch.testing.assert_close(
            across, torch.stack([by_hand(row, b).sum() for row in a]), rtol=1e-12, atol=1e-9
        )


def test_an_embedding_and_itself_add_exactly_nothing_to_the_gaussian_sums():
    x = clustered(50, 16, seed=3).repeat(2, 1)
    sums = kernel_sums(whole(x), whole(x[:1]), Gaussian(), GROUP)
    assert not sums.x.itself.any()
    alike = kernel_sums(whole(x[:1].repeat(9, 1)), whole(x[:1]), Gaussian(), GROUP)
    assert alike.x.others.abs().max() < 1e-15  # copies: rounding of |a|^2 + |b|^2 - 2 a.b


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total", [0, 1, TILE, 3 * TILE, 5 * TILE + 3])
def test_every_row_is_one_ranks_and_every_tile_is_whole(total, world_size):
    shares = [share(total, rank, world_size) for rank in range(world_size)]
    assert [row for own in shares for row in own] == list(range(total))
    assert all(own.start % TILE == 0 for own in shares if own)
    counts = [-(-len(own) // TILE) for own in shares]
    assert max(counts) - min(counts) <= 1


def test_tiles_carry_their_number_in_the_whole_set():
    rows = whole(spread(2 * TILE + 5, 3, seed=0))._replace(first=4 * TILE)
    assert [(number, len(tile)) for number, tile in tiles(rows)] == [(4, TILE), (5, TILE), (6, 5)]


def test_kernel_distance_of_all_images_is_torch_fidelitys_kid():
    fix_torchvision()  # which torch-fidelity imports
    kid = import_module("torch_fidelity.metric_kid").kid_features_to_metric
    x, y = 8 * spread(120, 64, seed=1), 8 * spread(120, 64, seed=2, shift=0.3)
    oracle = kid(x, y, kid_subsets=1, kid_subset_size=120, verbose=False)["kernel_inception_distance_mean"]
    sums = kernel_sums(whole(x), whole(y), Polynomial(), GROUP)
    assert unbiased_mmd(sums) == pytest.approx(oracle, rel=1e-9)
    assert estimate(sums).unbiased == unbiased_mmd(sums)
