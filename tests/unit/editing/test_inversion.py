"""Back to noise and forth again: exact for velocities whose solution is known, reported and warned about else."""

import logging
import math

import pytest
import torch
from harness.edited import tiny_pipeline

from lediflow.editing.inversion import (
    ADAPTIVE,
    encoded,
    inverted,
    latents_to_noise,
    method_name,
    noise_to_latents,
)
from lediflow.sampling.options import Method

EULER = Method("euler", 4)


def test_exponential_growth_is_undone_by_its_closed_form():
    data = torch.randn(3, 2, 2, generator=torch.manual_seed(0))
    found = inverted(lambda x, t: x, data, ADAPTIVE, EULER)
    torch.testing.assert_close(found.noise, data / math.e, rtol=1e-4, atol=1e-5)


def test_both_methods_are_reported_the_one_in_use_first():
    """Euler there and back multiplies by (1 - h)^n (1 + h)^n = (1 - h^2)^n."""
    data = torch.randn(2, 5, generator=torch.manual_seed(0))
    found = inverted(lambda x, t: x, data, EULER, EULER)
    assert list(found.errors) == ["euler 4", "dopri5"]
    expected = 1 - (1 - 1 / 16) ** 4
    assert found.errors["euler 4"] == pytest.approx([expected] * 2, rel=1e-4)
    assert max(found.errors["dopri5"]) < 1e-4
    assert list(inverted(lambda x, t: x, data, ADAPTIVE, EULER).errors) == ["dopri5", "euler 4"]
    assert method_name(Method("heun3", 2)) == "heun3 2"


def test_errors_above_the_threshold_are_warned_about(caplog):
    data = torch.ones(2, 3)
    found = inverted(lambda x, t: x, data, EULER, EULER)
    with caplog.at_level(logging.WARNING):
        assert found.warnings(["a.png", "b.png"], threshold=0.5) == []
        warned = found.warnings(["a.png", "b.png"], threshold=0.05)
    assert len(warned) == 2
    assert "a.png" in warned[0] and "euler 4" in warned[0] and "dopri5" in warned[0]
    assert "b.png" in caplog.text


def test_latents_of_images_return_through_the_sampler():
    pipeline = tiny_pipeline()
    z = encoded(pipeline, torch.rand(2, 1, 16, 16, generator=torch.manual_seed(2)) * 2 - 1)
    found = latents_to_noise(pipeline, z, Method("dopri5", 1))
    assert list(found.errors) == ["dopri5", "midpoint 4"]
    back = noise_to_latents(pipeline, found.noise, ADAPTIVE)
    errors = (back - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
    torch.testing.assert_close(torch.tensor(found.errors["dopri5"]), errors, rtol=1e-2, atol=1e-5)
    assert errors.max() < 1e-2
