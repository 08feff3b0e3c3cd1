"""Pictures of an evaluation, by models with known outputs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lediflow.evaluation.pictures import SHOWN, prior_pictures, step_pictures
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import Posterior, Prior
from lediflow.sampling import SamplingConfig

CONFIG = SamplingConfig(solver="midpoint", seed=3)


class KnownPipeline:
    """Image i is noise of number i, fading with every solver step."""

    device = torch.device("cpu")

    def __call__(self, indices, config):
        ids = torch.as_tensor(range(indices) if isinstance(indices, int) else list(indices))
        noise = SampleNoise(config.seed).normal(ids, "prior", (1, 4, 4))
        return SimpleNamespace(images=(noise / (2 + config.steps)).clamp(-1, 1), nfe=2 * config.steps)


def test_pictures_of_every_step_count_start_from_the_same_noise():
    pictures = step_pictures(KnownPipeline(), [replace(CONFIG, steps=steps) for steps in (1, 2)])
    assert set(pictures) == {"steps_1", "steps_2"}
    assert pictures["steps_1"].shape == (SHOWN, 1, 4, 4)
    inside = pictures["steps_1"].abs() < 1  # not clamped
    torch.testing.assert_close(pictures["steps_1"][inside] * 3, pictures["steps_2"][inside] * 4)


class KnownAuxiliary:
    """A prior at half the photograph, with one standard deviation everywhere."""

    def __init__(self, sigma: float):
        self.logvar = 2 * torch.tensor(sigma).log()

    def encode(self, y: Tensor) -> Posterior:
        return Posterior(y, torch.full_like(y, 5.0))  # a wide posterior: its mean is what counts

    def decode(self, z: Tensor) -> Prior:
        return Prior(z / 2, self.logvar.expand_as(z))


def test_prior_pictures_show_mean_spread_and_a_draw_of_that_spread():
    photographs = torch.linspace(-0.8, 0.8, 2 * 64).reshape(2, 1, 8, 8)
    pictures = prior_pictures(
        KnownAuxiliary(0.05),
        photographs,
        flow=lambda start: start.x - start.prior.mean,
        decode=lambda x: x,
        seed=1,
    )
    torch.testing.assert_close(pictures["photographs"], photographs)
    torch.testing.assert_close(pictures["prior_mean"], photographs / 2)
    torch.testing.assert_close(pictures["prior_sigma"], torch.full_like(photographs, 0.05))
    off = pictures["prior_draw"] - pictures["prior_mean"]
    assert off.std().item() == pytest.approx(0.05, rel=0.2)  # 128 draws: 6 % standard error
    torch.testing.assert_close(pictures["prior_result"], off)
