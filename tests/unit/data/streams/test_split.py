import numpy as np
import pytest

from lediflow.data.streams.split import is_held_out, samples_of

KEYS = np.arange(100_000)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_about_the_asked_fraction_is_held_out(fraction):
    deviation = np.sqrt(fraction * (1 - fraction) / len(KEYS))  # of a binomial share
    assert is_held_out(KEYS, fraction).mean() == pytest.approx(fraction, abs=4 * deviation)


def test_none_and_all_are_exact():
    assert not is_held_out(KEYS, 0.0).any()
    assert is_held_out(KEYS, 1.0).all()


def test_a_larger_fraction_contains_a_smaller_one():
    assert not (is_held_out(KEYS, 0.1) & ~is_held_out(KEYS, 0.2)).any()


def test_a_key_is_held_out_whatever_lies_beside_it():
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


def test_an_unknown_split_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="choose one of train, heldout, all"):
        samples_of("test", KEYS, 0.2)
