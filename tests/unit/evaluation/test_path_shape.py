"""Straightness and curvature of paths whose shape is known in closed form."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from lediflow.evaluation.cost import PATH_STEPS, path_shape
from lediflow.sampling import SamplingConfig

CONFIG = SamplingConfig(seed=1)
EXACT = 1e-6  # float32


class KnownFlow:
    """Starts at (i + 1, 0) for sample i and follows the given field."""

    device = torch.device("cpu")

    def __init__(self, velocity):
        self.velocity = velocity

    def start(self, ids, config):
        return SimpleNamespace(x=torch.stack([ids + 1.0, torch.zeros(len(ids))], dim=1))

    def velocity_from(self, start, config):
        return self.velocity


def shape(velocity, count: int = 5, **options):
    return path_shape(KnownFlow(velocity), CONFIG, count, **options)


def rotation(angle: float):
    """By `angle` about the origin, at constant angular speed."""
    quarter_turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    return lambda x, t: angle * x @ quarter_turn


DIRECTION = torch.tensor([3.0, 4.0])


def test_straight_paths_at_constant_speed_have_no_shape():
    assert shape(lambda x, t: DIRECTION.expand_as(x)) == pytest.approx((0, 0, 0), abs=EXACT)


def test_paths_of_different_constant_speeds_are_straight_each():
    assert shape(lambda x, t: torch.ones(len(x), 1) * DIRECTION) == pytest.approx((0, 0, 0), abs=EXACT)


def test_a_straight_path_at_growing_speed_has_no_curvature_but_deviates_by_a_third():
    """v = 2 t d reaches d: the mean of (1 - 2 t)^2 is 1/3; the middles of n steps give (1 - 1 / n^2) / 3."""
    found = shape(lambda x, t: 2 * t * DIRECTION.expand_as(x))
    assert found.curvature == pytest.approx(0, abs=EXACT)
    assert found.relative == pytest.approx((1 - PATH_STEPS**-2) / 3, rel=1e-5)
    assert found.straightness == pytest.approx(found.relative * 25 / 2, rel=1e-5)  # |d|^2 over two entries


@pytest.mark.parametrize("degrees", [30, 60, 90])
def test_an_arc_has_the_curvature_and_straightness_of_its_angle(degrees):
    """An arc of angle a and radius r has length a r and chord 2 r sin(a / 2)."""
    angle = math.radians(degrees)
    ratio = angle / (2 * math.sin(angle / 2))
    found = shape(rotation(angle))
    assert found.curvature == pytest.approx(ratio - 1, rel=1e-2)
    assert found.relative == pytest.approx(ratio**2 - 1, rel=1e-2)


def test_the_error_falls_with_the_square_of_the_steps():
    angle = math.radians(90)
    exact = angle / (2 * math.sin(angle / 2)) - 1
    errors = [abs(shape(rotation(angle), steps=steps).curvature - exact) for steps in (16, 32, 64)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.2)


def test_the_shape_is_the_mean_over_all_samples_for_any_batch():
    """Half of the samples turn, half go straight on: curvature is the mean over samples."""

    def velocity(x, t):
        turning = x.norm(dim=1, keepdim=True).round() % 2 == 0
        return torch.where(turning, rotation(1.0)(x, t), x)

    whole = shape(velocity, count=7, batch_size=7)
    assert whole.curvature > 0
    assert shape(velocity, count=7, batch_size=3) == pytest.approx(whole, rel=1e-9)


def test_a_zero_velocity_has_the_shape_of_a_straight_path():
    assert shape(lambda x, t: torch.zeros_like(x)) == (0, 0, 0)


def test_paths_without_a_chord_leave_numbers_that_json_can_write():
    """First all samples move forth and back; then only the first, while the others move straight."""

    def velocity(x, t):
        is_first = torch.arange(len(x))[:, None] == 0
        return torch.where(is_first, 0.0, DIRECTION.expand_as(x))

    loop = shape(lambda x, t: (1 - 2 * t) * DIRECTION.expand_as(x))
    json.dumps([*loop, *shape(velocity)], allow_nan=False)
    assert shape(velocity).curvature == pytest.approx(0, abs=EXACT)


def test_the_network_is_evaluated_twice_a_step():
    calls = []

    def velocity(x, t):
        calls.append(float(t))
        return DIRECTION.expand_as(x)

    shape(velocity, count=2, steps=4)
    assert calls == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
