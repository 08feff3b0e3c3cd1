"""The average of the weights: closed forms of an exponential moving average on the image clock."""

import pytest
import torch

from lediflow.engine.ema import EMAConfig, WeightAverage, decay_for

OLD = EMAConfig(half_life_images=1000, ramp=1e9)  # a run so old that the ramp does not bind


def test_after_one_half_life_of_images_half_of_the_old_average_is_left():
    weight = torch.zeros(3)
    average = WeightAverage([weight])
    weight.fill_(1.0)
    for _ in range(1000 // 8):
        average.update(decay_for(OLD, images_seen=10**6, batch=8))
    torch.testing.assert_close(average.average[0], torch.full((3,), 0.5))


def test_a_batch_weighs_as_much_as_its_images_whatever_its_size():
    once = decay_for(OLD, 10**6, batch=64)
    assert decay_for(OLD, 10**6, batch=16) ** 4 == pytest.approx(once)


def test_a_young_run_remembers_only_its_own_recent_share():
    config = EMAConfig(half_life_images=50_000, ramp=0.1)
    assert decay_for(config, images_seen=640, batch=64) == pytest.approx(0.5)  # half-life 64 images
    assert decay_for(config, images_seen=10**7, batch=50_000) == pytest.approx(0.5)  # the ramp has ended


def test_before_the_first_image_the_average_is_the_weights():
    assert decay_for(EMAConfig(), images_seen=0, batch=64) == 0.0


def test_the_average_is_the_weighted_sum_of_all_past_weights():
    random = torch.Generator().manual_seed(0)
    history = torch.randn(6, 4, generator=random)
    weight = history[0].clone()
    average = WeightAverage([weight])
    for values in history[1:]:
        weight.copy_(values)
        average.update(0.9)
    shares = torch.tensor([0.9**5, *(0.1 * 0.9**age for age in (4, 3, 2, 1, 0))])
    torch.testing.assert_close(average.average[0], shares @ history)


def test_bfloat16_weights_are_averaged_in_float32():
    weight = torch.zeros(1, dtype=torch.bfloat16)
    average = WeightAverage([weight.float()])
    average.weights[0].fill_(1.0)
    for _ in range(1000):
        average.update(0.9999)  # each step is below bfloat16's resolution near 0.1
    torch.testing.assert_close(average.average[0], torch.tensor([1 - 0.9999**1000]), rtol=1e-4, atol=0)


def test_swapping_in_the_average_is_undone_even_after_an_error():
    weight = torch.zeros(2)
    average = WeightAverage([weight])
    weight.fill_(1.0)
    with pytest.raises(RuntimeError), average.swapped_in():
        assert weight.tolist() == [0, 0]
        raise RuntimeError
    assert weight.tolist() == [1, 1]
    assert average.average[0].tolist() == [0, 0]


def test_a_rank_that_owns_nothing_averages_nothing():
    WeightAverage([]).update(0.5)
