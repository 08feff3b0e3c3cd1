import numpy as np
import pytest
from scipy.stats import chisquare

from lediflow.data.streams.order import RunOrder, epoch_order, share_of_rank

SIZES = [5, 3, 1, 0, 8, 2]


@pytest.mark.parametrize("sizes", [[1], [4, 4], SIZES, [1000] * 20])
@pytest.mark.parametrize("window", [0, 1, 4])
def test_an_epoch_holds_every_sample_once(sizes, window):
    order = epoch_order(sizes, seed=3, epoch=7, window=window)
    np.testing.assert_array_equal(np.sort(order), np.arange(sum(sizes)))


def test_samples_are_mixed_inside_windows_of_whole_shards_only():
    order = epoch_order([10] * 12, seed=0, epoch=0, window=4)
    windows = (order // 10).reshape(3, 40)  # the shards that each stretch of four shards touches
    assert [len(set(window)) for window in windows] == [4, 4, 4]
    assert len(set(windows[0][:8])) > 1  # mixed, not one shard after the other


def test_seeds_and_epochs_have_their_own_orders():
    orders = {
        tuple(epoch_order([50], seed=seed, epoch=epoch, window=4))
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


@pytest.mark.parametrize("sizes", [[6], [1] * 6])
def test_every_sample_is_first_equally_often(sizes):
    firsts = [epoch_order(sizes, seed=seed, epoch=0, window=1)[0] for seed in range(3000)]
    assert chisquare(np.bincount(firsts, minlength=6)).pvalue > 1e-3


def test_the_order_stays_what_it_was_when_this_was_written():
    # A changed order would make a resumed run repeat some images and miss others.
    assert epoch_order([3, 2, 4], seed=1, epoch=2, window=2).tolist() == [1, 8, 2, 7, 6, 5, 0, 3, 4]


def test_a_run_is_its_epochs_one_after_the_other():
    order = RunOrder(SIZES, seed=5, window=2)
    epochs = [epoch_order(SIZES, seed=5, epoch=epoch, window=2) for epoch in range(4)]
    np.testing.assert_array_equal(order.samples_at(np.arange(4 * 19)), np.concatenate(epochs))


def test_a_position_shows_its_sample_in_whatever_company_it_is_asked():
    order = RunOrder(SIZES, seed=5, window=2)
    together = order.samples_at(np.arange(100))
    alone = [int(order.samples_at(np.array([position]))[0]) for position in reversed(range(100))]
    assert alone[::-1] == together.tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_a_global_batch_exactly(world_size):
    shares = [
        share_of_rank(120, global_batch=12, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {12 // world_size}
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(120, 132))
