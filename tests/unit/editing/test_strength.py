"""Strength mixes noise so that it stays a draw of N(0, I), with the photograph's own at 0 and a fresh draw at 1."""

import math

import pytest
import torch
from harness.edited import SIZE, tiny_pipeline

from lediflow.editing.inversion import encoded
from lediflow.editing.strength import drawn_noise, mix_noise, mixed_latents
from lediflow.sampling import SamplingConfig

DOPRI5 = SamplingConfig(latent_solver="dopri5", seed=3)
IDS = torch.arange(2)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def z(pipeline):
    return encoded(pipeline, torch.rand(1, 1, SIZE, SIZE, generator=torch.manual_seed(2)) * 2 - 1)


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


def test_all_fresh_latents_are_those_of_sampling(pipeline, z):
    made = mixed_latents(pipeline, z, IDS, DOPRI5, 1.0)
    assert torch.equal(made.z, pipeline.latents(IDS, DOPRI5))
    assert made.inverted is None


def test_unmixed_latents_return_to_the_image_and_mixed_ones_leave_it(pipeline, z):
    """The tolerance is that of dopri5 there and back."""
    kept = mixed_latents(pipeline, z, IDS, DOPRI5, 0.0)
    torch.testing.assert_close(kept.z, z.expand(2, -1, -1, -1), rtol=0, atol=1e-2)
    distances = [(mixed_latents(pipeline, z, IDS, DOPRI5, s).z - z).norm().item() for s in (0.1, 0.4, 0.9)]
    assert distances == sorted(distances) and distances[0] > 0.01
    assert list(kept.inverted.errors) == ["dopri5", "midpoint 4"]


def test_fresh_noise_depends_on_seed_and_number_alone(pipeline):
    both = drawn_noise(pipeline, IDS, 3)
    assert torch.equal(drawn_noise(pipeline, IDS[1:], 3), both[1:])
    assert not torch.equal(drawn_noise(pipeline, IDS, 4), both)
