"""Sums over latents against numpy on everything at once, and float16's error against float16 itself."""

import numpy as np
import pytest
import torch

from lediflow.codecs import Latents
from lediflow.data.latents import channel_statistics, from_json, measure, merged, to_json


@pytest.fixture
def latents() -> Latents:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(12, 3, 4, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 2
    return Latents(mean, torch.randn(12, 3, 4, 4, generator=generator) - 20)


def pieces(latents: Latents, dtype: str) -> list[dict]:
    cuts = zip(latents.mean.split(5), latents.logvar.split(5), strict=True)
    return [measure(Latents(mean, logvar), dtype) for mean, logvar in cuts]


def test_pieces_sum_to_the_whole_also_after_json(latents):
    whole = channel_statistics(measure(latents, "float16"))
    parts = channel_statistics(merged(from_json(to_json(piece)) for piece in pieces(latents, "float16")))
    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-12)  # the order of float64 sums


def test_the_error_of_float16_is_what_numpy_s_float16_changes(latents):
    statistics = channel_statistics(merged(pieces(latents, "float16")))
    for half, unit in (("mean", np.array(statistics["std"])), ("logvar", np.ones(3))):
        exact = getattr(latents, half).double().numpy()
        error = np.abs(exact.astype(np.float16).astype(np.float64) - exact)
        np.testing.assert_allclose(statistics[f"{half}_error_max"], error.max((0, 2, 3)) / unit, rtol=1e-9)
        rms = np.sqrt(np.square(error).mean((0, 2, 3)))
        np.testing.assert_allclose(statistics[f"{half}_error_rms"], rms / unit, rtol=1e-9)


def test_float32_has_no_error_to_speak_of(latents):
    assert channel_statistics(measure(latents, "float32")).keys() == {"mean", "std"}


def test_a_channel_that_never_changes_has_finite_statistics():
    still = Latents(torch.full((4, 1, 2, 2), 0.1), None)
    statistics = channel_statistics(measure(still, "float16"))
    assert all(np.isfinite(values).all() for values in statistics.values())
