"""How often each transformation occurs, its magnitude, and the numbers that condition the model."""

import math
from dataclasses import fields

import pytest
import torch

from lediflow.data.augmentation import AugmentConfig, Draws, draw, numbers_of
from lediflow.flow.noise import SampleNoise

COUNT = 40_000  # a share of 0.12 then has a standard deviation of 0.0016
KINDS = [field.name for field in fields(AugmentConfig) if field.name != "probability"]
NOISE = SampleNoise(5)
IDS = torch.arange(COUNT)


def only(*kinds, probability=1.0):
    return AugmentConfig(probability=probability, **{kind: kind in kinds for kind in KINDS})


def one(**parameters):
    zeros = dict.fromkeys(Draws._fields, 0.0)
    return Draws(**{name: torch.tensor([value]) for name, value in (zeros | parameters).items()})


def share(values):
    return values.ne(0).float().mean().item()


def test_each_transformation_has_its_probability_and_the_horizontal_flip_one_half():
    drawn = draw(IDS, NOISE, AugmentConfig(probability=0.12))
    expected = dict.fromkeys(Draws._fields, 0.12) | {"mirrored": 0.5, "inverted": 0.06}
    for name, value in drawn._asdict().items():
        assert share(value) == pytest.approx(expected[name], abs=0.01), name  # 4 deviations and more
    assert share(drawn.is_resampled) == pytest.approx(1 - 0.88**4, abs=0.01)


def test_kinds_are_chosen_independently_of_each_other():
    drawn = draw(IDS, NOISE, AugmentConfig(probability=0.5))
    chosen = [value.ne(0).float() for value in (drawn.mirrored, drawn.inverted, drawn.scale, drawn.angle,
                                                drawn.stretch, drawn.shift_x)]  # fmt: skip
    correlations = torch.corrcoef(torch.stack(chosen)) - torch.eye(len(chosen))
    assert correlations.abs().max() < 0.025  # 5 deviations of 1 / sqrt(40000)


def test_sizes_are_standard_normal_and_angles_cover_the_circle():
    drawn = draw(IDS, NOISE, only("scaling", "rotation", "anisotropy", "translation"))
    for value in (drawn.scale, drawn.stretch, drawn.shift_x, drawn.shift_y):
        assert value.mean().item() == pytest.approx(0, abs=0.025)
        assert value.std().item() == pytest.approx(1, abs=0.02)
    for angle in (drawn.angle, drawn.direction):
        assert math.pi * 0.999 < angle.abs().max().item() <= math.pi
        assert angle.std().item() == pytest.approx(math.pi / math.sqrt(3), abs=0.04)  # uniform on (-pi, pi)
        assert angle.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_omitting_a_transformation_does_not_change_the_others(kind):
    every = draw(IDS[:500], NOISE, AugmentConfig(probability=0.5))
    less = draw(IDS[:500], NOISE, AugmentConfig(probability=0.5, **{kind: False}))
    changed = [name for name in Draws._fields if not torch.equal(getattr(every, name), getattr(less, name))]
    parameters = {
        "flip_horizontal": ["mirrored"], "flip_vertical": ["inverted"], "scaling": ["scale"], "rotation": ["angle"],
        "anisotropy": ["direction", "stretch"], "translation": ["shift_x", "shift_y"],
    }  # fmt: skip
    assert changed == parameters[kind]
    assert all(not getattr(less, name).any() for name in changed)


def test_probability_0_changes_nothing_and_reports_zeros():
    drawn = draw(IDS[:500], NOISE, AugmentConfig())
    assert not numbers_of(drawn).any() and not drawn.is_resampled.any()


@pytest.mark.parametrize(
    ("parameters", "numbers"),
    [
        ({}, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"mirrored": 1.0}, [1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"inverted": 1.0}, [0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ({"scale": -1.5}, [0, 0, -1.5, 0, 0, 0, 0, 0, 0]),
        ({"angle": math.pi / 2}, [0, 0, 0, -1, 1, 0, 0, 0, 0]),
        ({"angle": -math.pi / 3}, [0, 0, 0, -0.5, -math.sqrt(0.75), 0, 0, 0, 0]),
        ({"direction": math.pi / 6, "stretch": 2.0}, [0, 0, 0, 0, 0, math.sqrt(3), 1, 0, 0]),
        ({"direction": 1.0}, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"shift_x": 0.25, "shift_y": -4.0}, [0, 0, 0, 0, 0, 0, 0, 0.25, -4]),
    ],
)
def test_the_nine_numbers_are_k_diffusion_s(parameters, numbers):
    """[x-flip, y-flip, scale, cos - 1 and sin of the rotation, stretch times cos and sin of its direction, x, y]."""
    torch.testing.assert_close(numbers_of(one(**parameters)), torch.tensor([numbers], dtype=torch.float32))
