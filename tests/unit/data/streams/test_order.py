import numpy as np
import pytest
from scipy.stats import chisquare

from lediflow.data.streams import order as order_module
from lediflow.data.streams.order import EpochOrder, RunOrder, is_held_out, samples_of, share_of_rank
from lediflow.errors import UserError

SIZES = [5, 3, 1, 0, 8, 2]
KEYS = np.arange(100_000)


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
    orders = (EpochOrder(np.array(sizes), seed=seed, epoch=0, window=1) for seed in range(3000))
    firsts = [int(order.samples_at(np.arange(1))[0]) for order in orders]
    assert chisquare(np.bincount(firsts, minlength=6)).pvalue > 1e-3


def test_the_order_equals_the_recorded_one():
    # A changed order would make a resumed run repeat some images and miss others.
    # Who changes it on purpose raises ORDER_RULE in stream.py, by which such runs are refused.
    order = epoch_order([3, 2, 4, 3], seed=1, epoch=2, window=2)
    assert order.tolist() == [0, 1, 2, 6, 5, 7, 8, 4, 3, 11, 9, 10]


def test_a_run_is_its_epochs_one_after_the_other():
    order = RunOrder(SIZES, seed=5, window=2)
    epochs = [epoch_order(SIZES, seed=5, epoch=epoch, window=2) for epoch in range(4)]
    np.testing.assert_array_equal(order.samples_at(np.arange(4 * 19)), np.concatenate(epochs))


def test_the_sample_of_a_position_does_not_depend_on_the_other_positions():
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


def test_starting_anywhere_computes_only_the_windows_it_needs(monkeypatch):
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


def test_last_batch_drop_is_refused_if_the_batch_is_larger_than_the_data():
    with pytest.raises(UserError, match=r"nothing of 3 samples in batches of train.global_batch=4; use"):
        RunOrder([3], seed=0, window=1, last_batch="drop", global_batch=4)


def test_an_unknown_treatment_of_the_last_batch_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"data.last_batch=pad is not known; choose fill or drop"):
        RunOrder([3], seed=0, window=1, last_batch="pad")


def test_the_prefetched_shards_are_those_of_this_window_and_the_next():
    order = RunOrder([10] * 8, seed=3, window=2)
    shard_of = order.samples_at(np.arange(160)) // 10
    for position in range(0, 160, 20):  # a window holds twenty samples; the next may lie in the next epoch
        wanted = order.shards_wanted(position)
        here, following = (set(shard_of[begin : begin + 20]) for begin in (position, (position + 20) % 160))
        assert set(wanted[:2]) == here
        if position < 140:
            assert set(wanted) == here | following


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_about_the_requested_fraction_is_held_out(fraction):
    deviation = np.sqrt(fraction * (1 - fraction) / len(KEYS))  # of a binomial share
    assert is_held_out(KEYS, fraction).mean() == pytest.approx(fraction, abs=4 * deviation)


@pytest.mark.parametrize(
    ("key", "output"),
    enumerate((0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC)),
)
def test_keys_are_hashed_to_the_published_outputs_of_splitmix64(key, output):
    limit = (output >> 11) * 2.0**-53  # outputs of Vigna's splitmix64.c for the seed 0
    assert is_held_out(np.array([key]), np.nextafter(limit, 1))
    assert not is_held_out(np.array([key]), limit)


def test_none_and_all_are_exact():
    assert not is_held_out(KEYS, 0.0).any()
    assert is_held_out(KEYS, 1.0).all()


def test_a_larger_fraction_contains_a_smaller_one():
    assert not (is_held_out(KEYS, 0.1) & ~is_held_out(KEYS, 0.2)).any()


def test_whether_a_key_is_held_out_does_not_depend_on_other_keys():
    shuffled = np.random.default_rng(0).permutation(KEYS)
    np.testing.assert_array_equal(is_held_out(shuffled, 0.3), is_held_out(KEYS, 0.3)[shuffled])


def splitmix64(seed: int):
    """The generator as its authors published it, in Python's own integers."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        bits = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        yield bits ^ bits >> 31


def test_a_key_is_hashed_to_the_number_that_splitmix64_draws_for_it():
    words = splitmix64(seed=0)
    expected = [next(words) / 2**64 < 0.1 for _ in range(1000)]
    assert is_held_out(np.arange(1000), 0.1).tolist() == expected


def test_training_and_held_out_are_everything_once():
    parts = [samples_of(split, KEYS, 0.2) for split in ("train", "heldout")]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), samples_of("all", KEYS, 0.2))


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="choose one of train, heldout, all"):
        samples_of("test", KEYS, 0.2)
