import numpy as np
import pytest
from scipy.stats import chisquare

from lediflow.data.streams import order as order_module
from lediflow.data.streams.order import EpochOrder, RunOrder, share_of_rank
from lediflow.errors import UserError

SIZES = [5, 3, 1, 0, 8, 2]


def epoch_order(sizes, *, seed, epoch, window):
    order = EpochOrder(np.array(sizes), seed=seed, epoch=epoch, window=window)
    return order.samples_at(np.arange(sum(sizes)))


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
    # Who changes it on purpose raises ORDER_RULE in stream.py, by which such runs are refused.
    order = epoch_order([3, 2, 4, 3], seed=1, epoch=2, window=2)
    assert order.tolist() == [0, 1, 2, 6, 5, 7, 8, 4, 3, 11, 9, 10]


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


def test_starting_anywhere_works_out_no_more_than_the_windows_it_needs(monkeypatch):
    asked = []
    real = order_module.permutation
    monkeypatch.setattr(
        order_module, "permutation", lambda count, **key: asked.append(count) or real(count, **key)
    )
    RunOrder([10] * 1000, seed=0, window=4).samples_at(np.array([123_456]))
    assert asked == [1000, 40]  # the shards, and one window's samples


@pytest.mark.parametrize(("samples", "batch"), [(19, 4), (20, 4), (7, 7)])
def test_dropping_the_last_batch_leaves_whole_batches_of_one_epoch(samples, batch):
    order = RunOrder([samples], seed=0, window=1, last_batch="drop", global_batch=batch)
    whole = samples // batch * batch
    for epoch in range(5):
        seen = order.samples_at(np.arange(epoch * whole, (epoch + 1) * whole))
        assert len(set(seen.tolist())) == whole


def test_dropped_samples_change_from_epoch_to_epoch():
    order = RunOrder([19], seed=0, window=1, last_batch="drop", global_batch=4)
    seen = set(order.samples_at(np.arange(16 * 8)).tolist())
    assert seen == set(range(19))


def test_a_batch_larger_than_the_data_cannot_drop_what_is_not_whole():
    with pytest.raises(UserError, match=r"nothing of 3 samples in batches of train.global_batch=4; use"):
        RunOrder([3], seed=0, window=1, last_batch="drop", global_batch=4)


def test_an_unknown_treatment_of_the_last_batch_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"data.last_batch=pad is not known; choose fill or drop"):
        RunOrder([3], seed=0, window=1, last_batch="pad")


def test_the_shards_wanted_are_those_of_this_window_and_the_next():
    order = RunOrder([10] * 8, seed=3, window=2)
    shard_of = order.samples_at(np.arange(160)) // 10
    for position in range(0, 160, 20):  # a window holds twenty samples; the next may lie in the next epoch
        wanted = order.shards_wanted(position)
        here, following = (set(shard_of[begin : begin + 20]) for begin in (position, (position + 20) % 160))
        assert set(wanted[:2]) == here
        if position < 140:
            assert set(wanted) == here | following
