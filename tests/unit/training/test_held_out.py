"""When a held-out loss has turned: on constructed sequences, and how often a plateau is taken for a turn."""

import json
import math

import numpy as np
import pytest

from lediflow.training.held_out import HeldOut, rise_and_noise, scatter

SAMPLES = 128
EVERY = 65_536
# 3,578 faces of the campaign
EXAMPLE = [
    -0.2,
    -1.1,
    -1.4,
    -1.48,
    *(-1.48 + 0.16 * step for step in range(1, 20)),
]


def noted(means, chance=None, own=0.2, hardness=1.0):
    """A run's record of validations with these means, of samples that are as hard as they are and vary a little."""
    chance = chance or np.random.default_rng(0)
    base = chance.normal(0, hardness, SAMPLES)
    held_out = HeldOut("samples")
    for number, mean in enumerate(means, start=1):
        losses = base + chance.normal(0, own, SAMPLES)
        held_out.note(number * EVERY, losses - losses.mean() + mean)
    return held_out


def falling(validations, to=0.0, by=1.0):
    return to + by * np.exp(-np.arange(validations) / 3)


class TestTurned:
    def test_a_loss_that_memorises_is_found_within_a_few_validations_with_its_lowest_place(self):
        turn = noted(EXAMPLE).turn
        assert (turn.best_images_seen, turn.best_loss) == (4 * EVERY, pytest.approx(-1.48))
        assert turn.images_seen <= 10 * EVERY

    def test_the_best_is_the_first_of_the_lowest_means(self):
        held_out = noted([0.3, 0.1, 0.2, 0.1, 0.4])
        assert (held_out.best.images_seen, held_out.best.loss) == (2 * EVERY, pytest.approx(0.1))

    def test_the_turn_is_reported_once_even_if_the_loss_falls_and_turns_again(self):
        chance, held_out = np.random.default_rng(0), HeldOut()
        base = chance.normal(0, 1, SAMPLES)
        means = [*EXAMPLE[:12], *np.linspace(0, -3, 12), *np.linspace(-3, 1, 12)]
        said = [held_out.note(number, base + mean).has_turned for number, mean in enumerate(means)]
        assert sum(said) == 1

    def test_one_validation_above_is_not_enough(self):
        spike = [*falling(20), 0.4, *falling(20)[10:]]
        assert noted(spike).turn is None

    def test_a_rise_that_is_small_relative_to_the_fall_is_not_enough(self):
        held_out = noted([*falling(20), *np.linspace(0.002, 0.04, 20)], own=0.001)
        assert held_out.last.rise > 5 * held_out.last.noise
        assert held_out.turn is None

    def test_a_rise_within_the_noise_of_the_samples_is_not_enough(self):
        held_out = noted([*falling(20), *np.linspace(0.01, 0.3, 6)], own=2.0)
        assert held_out.turn is None
        assert noted([*falling(20), *np.linspace(0.01, 0.3, 6)], own=0.02).turn is not None

    def test_nan_losses_count_as_above_and_are_never_the_best(self):
        held_out = noted([0.5, 0.4, 0.3, 0.2, math.nan, math.nan])
        assert held_out.best.loss == pytest.approx(0.2)
        assert held_out.turn.rise == math.inf
        assert noted([math.nan, 0.3]).best.loss == pytest.approx(0.3)


class TestNoise:
    def test_of_pairs_is_the_standard_error_of_the_mean_difference(self):
        best, now = np.array([1.0, 50.0, -7.0, 3.0]), np.array([1.5, 50.1, -6.8, 3.2])
        rise, noise = rise_and_noise(now, best, [])
        assert rise == pytest.approx(0.25)
        assert noise == pytest.approx(np.std([0.5, 0.1, 0.2, 0.2], ddof=1) / 2)

    def test_a_parabola_has_no_deviation_from_smoothness(self):
        assert scatter([3.0 - 0.4 * t + 0.02 * t * t for t in range(40)]) == pytest.approx(0, abs=1e-12)

    def test_the_deviation_from_smoothness_is_that_of_added_white_noise(self):
        means = falling(4000) + np.random.default_rng(0).normal(0, 0.02, 4000)
        # of a median over neighbours that share terms
        assert scatter([*means]) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("strays", [0.0, 0.002, 0.01], ids=lambda share: f"{share} of the fall")
@pytest.mark.parametrize("memory", [0.0, 0.4], ids=["white", "correlated as averages are"])
def test_a_noisy_plateau_is_called_turned_in_fewer_than_one_of_a_hundred_runs(strays, memory):
    chance, runs, validations = np.random.default_rng(1), 150, 40
    alarms = 0
    for _ in range(runs):
        noise = chance.normal(0, 1, validations)
        for number in range(1, validations):
            noise[number] = memory * noise[number - 1] + math.sqrt(1 - memory**2) * noise[number]
        alarms += noted(falling(validations) + strays * noise, chance, own=0.05).turn is not None
    assert alarms / runs < 0.01


def test_a_record_restored_from_json_continues_identically():
    whole = noted(EXAMPLE)
    half = HeldOut.from_state(json.loads(json.dumps(noted(EXAMPLE[:5]).state())))
    chance = np.random.default_rng(0)
    base = chance.normal(0, 1, SAMPLES)
    for number, mean in enumerate(EXAMPLE, start=1):
        losses = base + chance.normal(0, 0.2, SAMPLES)
        if number > 5:
            half.note(number * EVERY, losses - losses.mean() + mean)
    assert half.state() == whole.state()


def test_a_restarted_record_keeps_that_the_turn_was_reported():
    begun = noted(EXAMPLE).restarted()
    assert (begun.best, begun.validations) == (None, 0)
    assert begun.turn == noted(EXAMPLE).turn
