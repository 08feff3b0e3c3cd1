"""Images under known transformations: closed forms, and SciPy's interpolation along k-diffusion's matrices."""

import math
from functools import reduce

import numpy as np
import pytest
import torch
from scipy import ndimage

from lediflow.data import augmentation
from lediflow.data.augmentation import (
    AugmentConfig,
    Draws,
    all_resampled,
    along_both,
    augmented,
    draw,
    linear_origin,
    resampled,
    shift_in_sides,
    some_resampled,
    transformed,
    upsampled,
)
from lediflow.flow.noise import SampleNoise

SIDE = 16
EXACT = {"rtol": 0, "atol": 1e-12}  # float64, where a closed form moves whole pixels
NOISE = SampleNoise(3)


def noisy(count=1, side=SIDE, channels=2):
    """Every frequency an image can hold."""
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, channels, side, side, generator=generator, dtype=torch.float64) * 2 - 1


def one(**parameters):
    zeros = dict.fromkeys(Draws._fields, 0.0)
    return Draws(
        **{key: torch.tensor([value], dtype=torch.float64) for key, value in (zeros | parameters).items()}
    )


def smooth(side, count=1):
    """Waves of at least 10 pixels, which any sound interpolation follows."""
    generator = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(*2 * [torch.arange(side, dtype=torch.float64)], indexing="ij")
    waves = torch.randn(count, 6, 2, generator=generator, dtype=torch.float64)
    waves = waves / waves.norm(dim=-1, keepdim=True) * (2 * math.pi / 10)
    phases = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return (phases + torch.arange(6)[:, None, None]).cos().mean(dim=1, keepdim=True)


def by_scipy(image, draws):
    """k-diffusion's product of matrices, from the image's pixels to the result's, and cubic splines."""
    side = image.shape[-1]
    a = {name: value.item() for name, value in draws._asdict().items()}

    def move(x, y):
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])

    def scale(x, y):
        return np.diag([x, y, 1.0])

    def turn(angle):
        c, s = math.cos(angle), math.sin(angle)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])

    steps = [
        move(side / 2 - 0.5, side / 2 - 0.5),
        scale(1 - 2 * a["mirrored"], 1),
        scale(1, 1 - 2 * a["inverted"]),
        scale(2 ** (0.2 * a["scale"]), 2 ** (0.2 * a["scale"])),
        turn(-a["angle"]),
        turn(a["direction"]),
        scale(2 ** (0.2 * a["stretch"]), 2 ** (-0.2 * a["stretch"])),
        turn(-a["direction"]),
        move(side / 8 * a["shift_x"], side / 8 * a["shift_y"]),
        move(0.5 - side / 2, 0.5 - side / 2),
    ]
    origin = np.linalg.inv(reduce(np.matmul, steps))
    y, x = np.mgrid[:side, :side]
    x, y, _ = np.einsum("ij,jhw->ihw", origin, np.stack([x, y, np.ones_like(x)]))
    return torch.from_numpy(ndimage.map_coordinates(image[0, 0].numpy(), [y, x], order=3, mode="mirror"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_untransformed_image_keeps_its_bits(dtype):
    images, nothing = noisy(3).to(dtype), Draws(*(torch.zeros(3, dtype=dtype) for _ in Draws._fields))
    assert torch.equal(transformed(images, nothing), images)


def test_flips_keep_the_bits_of_pixels():
    images = noisy()
    assert torch.equal(transformed(images, one(mirrored=1.0)), images.flip(-1))
    assert torch.equal(transformed(images, one(inverted=1.0)), images.flip(-2))
    assert torch.equal(transformed(images, one(mirrored=1.0, inverted=1.0)), images.flip(-1, -2))


def test_upsampling_then_downsampling_is_the_identity():
    images = noisy()
    torch.testing.assert_close(
        resampled(images, linear_origin(one()), shift_in_sides(one())), images, **EXACT
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_move_whole_pixels_counterclockwise(turns):
    images = noisy()
    found = transformed(images, one(angle=turns * math.pi / 2))
    torch.testing.assert_close(found, torch.rot90(images, turns, (-2, -1)), **EXACT)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -2), (-5, 4)])
def test_shifts_by_whole_pixels_continue_with_the_reflected_image(x, y):
    images = noisy()
    found = transformed(images, one(shift_x=x * 8 / SIDE, shift_y=y * 8 / SIDE))
    padded = torch.nn.functional.pad(images, (8, 8, 8, 8), mode="reflect")
    torch.testing.assert_close(found, padded[..., 8 - y : 24 - y, 8 - x : 24 - x], **EXACT)


def test_a_shift_by_more_than_the_side_continues_in_the_mirrored_image():
    images = noisy()
    found = transformed(images, one(shift_x=30 * 8 / SIDE))  # the period of an image and its mirror is 2 x 15
    torch.testing.assert_close(found, images, **EXACT)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_a_wave_has_its_closed_form(factor):
    side = 65
    x = torch.arange(side, dtype=torch.float64) - 32
    image = (x * 2 * math.pi / 24).cos().expand(1, 1, side, side)
    found = transformed(image, one(scale=math.log2(factor) / 0.2))
    expected = (x / factor * 2 * math.pi / 24).cos()[20:45]  # where no mirrored border is near
    # waves of 12 and 48 pixels pass the filters with a gain of 0.99 and more
    assert (found[0, 0, 32, 20:45] - expected).abs().max() < 0.015


@pytest.mark.parametrize(
    "parameters",
    [
        {"angle": 0.7},
        {"scale": 1.3},
        {"scale": -0.9},
        {"direction": 0.9, "stretch": 1.1},
        {"direction": -2.0, "stretch": -0.8},
        {"shift_x": 0.33, "shift_y": -1.2},
        {"mirrored": 1.0, "angle": 2.1, "shift_x": 0.7},
        {"inverted": 1.0, "scale": 0.5, "angle": -0.4, "direction": 0.3, "stretch": 1.0, "shift_x": 1, "shift_y": 0.2},
    ],
    ids=str,
)  # fmt: skip
def test_smooth_images_are_transformed_like_in_k_diffusion(parameters):
    image = smooth(48)
    difference = (transformed(image, one(**parameters))[0, 0] - by_scipy(image, one(**parameters))).abs()
    # of values in [-1, 1]: linear steps of half a pixel err by 0.6 % of a wave, by more at the mirrored border's kink
    assert difference.mean() < 0.004
    assert difference.max() < 0.05


def test_stripes_too_fine_for_a_smaller_image_become_grey_and_do_not_alias():
    stripes = torch.ones(1, 1, 64, 64, dtype=torch.float64)
    stripes[..., ::2] = -1
    found = transformed(stripes, one(scale=-5 * math.log2(1.6)))  # 1 / 1.6 of the size
    assert found[..., 16:48, 16:48].abs().max() < 0.25  # point sampling shows stripes of full contrast


@pytest.mark.parametrize("size", [1, 3, 7])
def test_images_do_not_depend_on_their_batch(size):
    ids, config = torch.tensor([9, 1000, 3, 77, 12, 5, 6, 2**40, 8, 21]), AugmentConfig(probability=0.6)
    images = noisy(10, side=32).float()
    whole = augmented(images, ids, NOISE, config)
    parts = [
        augmented(*part, NOISE, config) for part in zip(images.split(size), ids.split(size), strict=True)
    ]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.numbers, torch.cat([part.numbers for part in parts]))


def test_resampling_all_images_or_only_some_gives_the_same_bits():
    images = noisy(10).float()
    draws = draw(torch.arange(10), NOISE, AugmentConfig(probability=0.3))
    assert 0 < draws.is_resampled.sum() < 10
    assert torch.equal(all_resampled(images, draws), some_resampled(images, draws))


def test_parts_that_bound_the_memory_change_no_bit(monkeypatch):
    images, draws = noisy(6).float(), draw(torch.arange(6), NOISE, AugmentConfig(probability=1.0))
    whole = transformed(images, draws)
    monkeypatch.setattr(augmentation, "NUMBERS_AT_ONCE", 2 * images[0].numel())
    assert torch.equal(transformed(images, draws), whole)


def test_upsampling_interpolates_between_equal_pixels():
    """Both phases of the upsampling keep a constant, and a slope inside the image."""
    ramp = torch.arange(12, dtype=torch.float64).expand(1, 1, 12, 12)
    fine = along_both(upsampled, ramp)
    assert fine.shape[-2:] == (23, 23)
    torch.testing.assert_close(
        fine[0, 0, 11, 6:17], torch.arange(6, 17, dtype=torch.float64) / 2, rtol=0, atol=1e-9
    )
