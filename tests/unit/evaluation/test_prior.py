"""Diagnostics of a prior whose truth is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.modes.prior import describe
from lediflow.evaluation.prior import diagnose
from lediflow.models.auxiliary import Posterior, Prior

SIGMA, FLOOR = 0.25, -7.0
COUNT, SHAPE = 40, (1, 32, 32)


class KnownPrior:
    """Says N(0, said^2) of every entry; half of an image's rows are three times as wide."""

    def __init__(self, said: float, floor: float = FLOOR) -> None:
        widths = torch.ones(SHAPE)
        widths[:, 16:] = 3
        self.logvar = 2 * (said * widths).log()
        self.spec = SimpleNamespace(logvar_floor=floor)

    def encode(self, y: Tensor) -> Posterior:
        return Posterior(torch.ones(len(y), 2, 2, 2), torch.zeros(len(y), 2, 2, 2))

    def decode(self, z: Tensor) -> Prior:
        return Prior(torch.zeros(len(z), *SHAPE), self.logvar.expand(len(z), *SHAPE))


def drawn(numbers: range) -> Tensor:
    """What a prior of deviation SIGMA says: images from it."""
    noise = torch.stack(
        [torch.randn(SHAPE, generator=torch.Generator().manual_seed(number)) for number in numbers]
    )
    widths = torch.ones(SHAPE)
    widths[:, 16:] = 3
    return SIGMA * widths * noise


def found(said: float = SIGMA, batch_size: int = 16, **options) -> dict:
    return diagnose(KnownPrior(said, **options), drawn, COUNT, Group(), batch_size=batch_size)


def test_a_prior_that_is_right_is_calibrated():
    right = found()
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(SIGMA) + 0.5 * math.log(3)
    assert right["nll_nats"] == pytest.approx(entropy, abs=0.02)  # 40,960 draws
    assert right["nll_bits_per_byte"] == pytest.approx(right["nll_nats"] / math.log(2) + math.log2(127.5))
    assert right["z_mean"] == pytest.approx(0, abs=0.02)
    assert right["z_variance"] == pytest.approx(1, abs=0.03)
    assert right["z_kurtosis"] == pytest.approx(3, abs=0.1)
    assert right["ence"] < 0.02 and right["coverage_error"] < 0.01


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_calibration_shows_a_prior_whose_sigma_is_wrong_by_a_factor(factor):
    off = found(said=factor * SIGMA)
    assert off["z_variance"] == pytest.approx(1 / factor**2, rel=0.03)
    assert off["ence"] == pytest.approx(abs(1 / factor - 1), rel=0.05)
    assert off["coverage_error"] > 0.15


def test_sharpness_is_the_predicted_deviation():
    right = found()
    assert right["sigma_mean"] == pytest.approx(2 * SIGMA)
    assert right["sigma_geometric_mean"] == pytest.approx(math.sqrt(3) * SIGMA)
    assert right["sigma_rms"] == pytest.approx(SIGMA * math.sqrt(5))


def test_the_share_at_the_floor_is_that_of_the_narrow_half():
    assert found(floor=2 * math.log(SIGMA))["share_at_floor"] == pytest.approx(0.5)
    assert found()["share_at_floor"] == 0


def test_psnr_is_of_the_mean():
    images = drawn(range(COUNT))
    mse = images.square().flatten(1).mean(1)
    assert found()["psnr"] == pytest.approx((10 * torch.log10(4 / mse)).mean().item(), rel=1e-5)


def test_latents_have_neither_bytes_nor_a_peak():
    """Decibels are relative to the largest difference of two signals, 2 for pixels; latents have none."""
    pixels, latents = (
        diagnose(KnownPrior(SIGMA), drawn, COUNT, Group(), is_pixels=is_pixels) for is_pixels in (True, False)
    )
    assert pixels.keys() - latents.keys() == {"nll_bits_per_byte", "psnr", "psnr_of_mean_error"}
    assert "dB" in describe(pixels) and "dB" not in describe(latents)


def test_the_posteriors_divergence_has_its_closed_form():
    assert found()["kl_nats_per_image"] == pytest.approx(8 * 0.5)  # eight entries of mean 1, variance 1
    assert found()["kl_nats_by_channel"] == pytest.approx([4 * 0.5, 4 * 0.5])


class Telling(KnownPrior):
    """A latent of eight entries, of which the first three move with the image: deviations 0.05, 0.2 and 1."""

    def encode(self, y: Tensor) -> Posterior:
        mean = 3 * torch.ones(len(y), 8)
        mean[:, :3] = y.flatten(1)[:, :3] / SIGMA * torch.tensor([0.05, 0.2, 1.0])
        return Posterior(mean.reshape(-1, 2, 2, 2), torch.zeros(len(y), 2, 2, 2))


@pytest.mark.parametrize("batch_size", [7, 40])
def test_active_units_are_the_entries_whose_mean_moves_with_the_image(batch_size):
    found = diagnose(Telling(SIGMA), drawn, COUNT, Group(), batch_size=batch_size)
    assert (found["active_units"], found["latent_entries"]) == (2, 8)  # a variance of 0.0025 is none


def test_histogram_and_calibration_count_every_entry():
    right = found()
    entries = COUNT * math.prod(SHAPE)
    assert sum(right["z_histogram"]["counts"]) == entries
    assert len(right["z_histogram"]["counts"]) == len(right["z_histogram"]["edges"]) + 1
    assert right["calibration"]["counts"] == [entries / 2, entries / 2]
    assert right["calibration"]["predicted"] == pytest.approx([SIGMA, 3 * SIGMA])
    assert right["calibration"]["observed"] == pytest.approx([SIGMA, 3 * SIGMA], rel=0.02)


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_the_batch_changes_nothing(batch_size):
    expected, other = found(), found(batch_size=batch_size)
    assert other["ence"] == pytest.approx(expected["ence"])
    assert other["z_histogram"] == expected["z_histogram"]
    assert other["psnr"] == pytest.approx(expected["psnr"])
