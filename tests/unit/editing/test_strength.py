"""Strength mixes noise so that it stays a draw of N(0, I), with the photograph's own at 0 and a fresh draw at 1."""

import math

import pytest
import torch
from harness.edited import SIZE, tiny_pipeline

from lediflow.codecs import signal_to_bytes
from lediflow.editing.inpainting import inpaint, prepared
from lediflow.editing.strength import drawn_noise, mix_noise, mixed_latents, mixed_start, own_of
from lediflow.editing.variation import parts_of, varied
from lediflow.sampling import SamplingConfig

DOPRI5 = SamplingConfig(latent_solver="dopri5", seed=3)
IDS = torch.arange(2)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 1, SIZE, SIZE, generator=torch.manual_seed(2)) * 2 - 1


def test_the_ends_are_exact():
    own, fresh = torch.randn(2, 3, 5, generator=torch.manual_seed(0))
    assert torch.equal(mix_noise(own, fresh, 0.0), own)
    assert torch.equal(mix_noise(own, fresh, 1.0), fresh)


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_a_mix_is_a_draw_whose_correlation_with_its_own_noise_is_known(strength):
    own, fresh = torch.randn(2, 200_000, generator=torch.manual_seed(1))
    mixed = mix_noise(own, fresh, strength)
    # six standard errors of a mean over 200,000 draws
    assert mixed.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / 200_000))
    expected = math.sqrt(1 - strength**2)
    assert (mixed * own).mean().item() == pytest.approx(expected, abs=6 * math.sqrt(2 / 200_000))


@pytest.mark.parametrize("strength", [-0.1, 1.01, math.nan])
def test_strengths_beyond_their_range_are_refused(strength):
    with pytest.raises(ValueError, match="from 0"):
        mix_noise(torch.zeros(2), torch.zeros(2), strength)


def test_all_fresh_latents_are_those_of_sampling(pipeline, image):
    own = own_of(pipeline, image, DOPRI5, "")
    assert own.inverted == {} and own.x_noise is None
    assert torch.equal(mixed_latents(pipeline, own, IDS, DOPRI5, 1.0), pipeline.latents(IDS, DOPRI5))


def test_unmixed_latents_return_to_the_image_and_mixed_ones_leave_it(pipeline, image):
    """The tolerance is that of dopri5 there and back."""
    own = own_of(pipeline, image, DOPRI5, "w")
    kept = mixed_latents(pipeline, own, IDS, DOPRI5, 0.0)
    torch.testing.assert_close(kept, own.z.expand(2, -1, -1, -1), rtol=0, atol=1e-2)
    distances = [(mixed_latents(pipeline, own, IDS, DOPRI5, s) - own.z).norm().item() for s in (0.1, 0.9)]
    assert distances == sorted(distances) and distances[0] > 0.01
    assert list(own.round_trips()["w"]) == ["dopri5", "midpoint 4"]


def test_the_start_is_the_photographs_at_zero_fresh_at_one_and_a_mix_between(pipeline, image):
    own = own_of(pipeline, image, DOPRI5, "x")
    start = pipeline.start_from(IDS, own.z.repeat(2, 1, 1, 1), DOPRI5)
    assert mixed_start(start, own, 1.0) is start
    none = mixed_start(start, own, 0.0).x
    torch.testing.assert_close(none, own.inverted["x"].noise.expand_as(none), rtol=1e-4, atol=1e-4)
    sigma = torch.exp(start.prior.logvar / 2)
    fresh = (start.x - start.prior.mean) / sigma
    expected = start.prior.mean + sigma * mix_noise(own.x_noise, fresh, 0.6)
    torch.testing.assert_close(mixed_start(start, own, 0.6).x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keep", ["z", "x"])
def test_versions_of_strength_zero_are_the_photograph_and_of_one_as_without_it(pipeline, image, keep):
    """Up to dopri5 there and back, enlarged by networks of random weights."""
    config = SamplingConfig(solver="dopri5", latent_solver="dopri5")
    options = {"keep": keep}
    own = own_of(pipeline, image, config, parts_of(keep, 0.5))
    kept = varied(pipeline, own, IDS, config, strength=0.0, **options).images
    torch.testing.assert_close(kept, image.expand(2, -1, -1, -1), rtol=0, atol=0.05)
    lean = own_of(pipeline, image, config, parts_of(keep, 1.0))
    assert set(lean.inverted) == ({"x"} if keep == "x" else set())
    new = varied(pipeline, lean, IDS, config, strength=1.0, **options).images
    assert (new - image).abs().mean() > 0.05
    assert not torch.equal(new[0], new[1])


@pytest.mark.parametrize("z_from", ["image", "masked", "sampler"])
def test_a_repainted_photograph_of_strength_zero_is_nearly_the_photograph(pipeline, image, z_from):
    """Not exactly: x is from the flow's own path, and eq. 7 keeps the pixels outside on a straight line."""
    config = SamplingConfig(solver="dopri5", latent_solver="dopri5")
    pixels = signal_to_bytes(image[0])
    amount = torch.zeros(1, 1, SIZE, SIZE)
    amount[..., 4:9, 5:12] = 1
    made = {}
    for strength in (0.0, 1.0):
        task = prepared(pipeline, pixels, amount, config, z_from, strength=strength)
        made[strength] = inpaint(pipeline, task, [0], config)
        assert torch.equal(made[strength].pixels[0][amount[0] == 0], pixels[amount[0] == 0])
        assert made[strength].line_error < 1e-4
        assert bool(task.own.inverted) == (strength < 1)
    changes = [(one.pixels[0].int() - pixels.int()).abs().max().item() for one in made.values()]
    assert changes[0] <= 16 and changes[1] > 3 * changes[0]


def test_fresh_noise_depends_on_seed_and_number_alone(pipeline):
    both = drawn_noise(pipeline, IDS, 3)
    assert torch.equal(drawn_noise(pipeline, IDS[1:], 3), both[1:])
    assert not torch.equal(drawn_noise(pipeline, IDS, 4), both)
