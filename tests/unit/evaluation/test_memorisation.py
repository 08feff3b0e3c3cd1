"""Copies of training images are flagged and fresh draws are not; the statistics are scipy's."""

import json

import pytest
import torch
from scipy.stats import mannwhitneyu, norm

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.neighbors import copying_test, nearest_training
from lediflow.evaluation.tiles import whole

DIM = 12


def draws(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


TRAINING, HELD_OUT = draws(1500, seed=0), draws(400, seed=1)


def judged(samples: torch.Tensor, training=TRAINING, held_out=HELD_OUT) -> dict:
    return nearest_training(
        whole(training), None if held_out is None else whole(held_out), whole(samples), Group()
    )


@pytest.mark.parametrize("seed", range(10, 15))
def test_fresh_draws_of_the_same_distribution_are_not_flagged(seed):
    result = judged(draws(300, seed))
    assert not result["flag"] and result["reasons"] == []
    assert abs(result["copying_z"]) < 3
    assert result["median_distance"] == pytest.approx(result["held_out"]["median_distance"], rel=0.05)


def test_exact_copies_are_flagged_with_the_images_that_they_are_of():
    copied = torch.tensor([7, 1203, 450, 3, 88, 1400, 21, 22, 23])
    result = judged(torch.cat([draws(50, seed=20), TRAINING[copied]]))
    assert result["flag"]
    assert result["closest"]["samples"] == list(range(50, 58))
    assert result["closest"]["training"] == copied[:8].tolist()
    assert result["closest"]["distances"] == result["closest"]["ratios"] == [0.0] * 8
    assert result["share_memorised"] == pytest.approx(9 / 59)


def test_slightly_changed_copies_are_flagged():
    result = judged(TRAINING[:100] + 0.05 * draws(100, seed=21))
    assert result["flag"] and len(result["reasons"]) == 2
    assert result["share_memorised"] > 0.95
    assert result["copying_z"] < -10
    assert result["share_closer"] > 0.99


def test_a_difference_that_needs_many_images_is_reported_and_not_flagged():
    result = judged(draws(4000, seed=33) * 0.96, held_out=draws(4000, seed=34))
    assert result["copying_z"] < -3 and 0.5 < result["share_closer"] < 0.6
    assert not result["flag"]


def test_a_small_share_of_copies_is_flagged():
    result = judged(torch.cat([draws(380, seed=22), TRAINING[:20]]))
    assert result["flag"]
    assert result["share_memorised"] == pytest.approx(20 / 400)


def test_copies_are_flagged_without_held_out_photographs():
    result = judged(TRAINING[:30], held_out=None)
    assert result["flag"] and "copying_z" not in result and "held_out" not in result
    assert not judged(draws(200, seed=23), held_out=None)["flag"]


def test_duplicates_in_the_data_do_not_flag_the_samples():
    """Held-out photographs that have near-doubles in training set what is usual."""
    held_out = torch.cat([TRAINING[:100] + 0.01 * draws(100, seed=24), draws(300, seed=25)])
    fresh_with_as_many = torch.cat([TRAINING[100:200] + 0.01 * draws(100, seed=26), draws(300, seed=27)])
    result = judged(fresh_with_as_many, held_out=held_out)
    assert result["share_memorised"] == pytest.approx(result["held_out"]["share_memorised"])
    assert not result["flag"]


def test_a_copy_of_a_duplicated_training_image_is_a_copy():
    result = judged(TRAINING[:20], training=torch.cat([TRAINING, TRAINING[:20]]), held_out=None)
    assert result["share_memorised"] == 1
    assert result["closest"]["training"] == list(range(8))


def test_images_unlike_any_photograph_are_not_copies():
    result = judged(draws(200, seed=28) * 3)
    assert result["copying_z"] > 10 and not result["flag"]


def test_z_is_scipys_of_the_mann_whitney_test_with_and_without_ties():
    few, tied = (draws(30, 1), draws(20, 2)), (draws(30, 3).round(), draws(25, 4).round())
    many = (draws(700, 5), draws(600, 6))  # more pairs than float32 counts
    for one, other in (few, tied, many):
        samples, held_out = one.flatten().double(), other.flatten().double()
        expected = mannwhitneyu(
            samples, held_out, alternative="less", method="asymptotic", use_continuity=False
        )
        found = copying_test(samples, held_out)
        assert norm.cdf(found["copying_z"]) == pytest.approx(expected.pvalue, rel=1e-9)
        assert 1 - found["share_closer"] == pytest.approx(expected.statistic / (len(samples) * len(held_out)))


def test_distances_that_are_all_equal_decide_nothing():
    assert copying_test(torch.ones(5), torch.ones(4)) == {"copying_z": 0.0, "share_closer": 0.5}


def test_the_result_goes_into_json():
    assert json.loads(json.dumps(judged(draws(20, seed=29))))["training_images"] == 1500


def test_one_training_image_has_no_second_nearest():
    with pytest.raises(UserError, match=r"found 1 training images, at least 2 .*take more"):
        judged(draws(5, seed=30), training=TRAINING[:1])


def test_held_out_photographs_that_were_trained_on_are_refused():
    with pytest.raises(UserError, match="80% of the 50 held-out photographs are training images too"):
        judged(draws(20, seed=31), held_out=torch.cat([TRAINING[:40], draws(10, seed=32)]))
