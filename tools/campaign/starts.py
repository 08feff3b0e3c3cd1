"""Experiment: starts of the flow that are not options of the toolkit; runs a command with another start.

    python tools/campaign/starts.py floor=0.2 lediflow.train stage=flow parent=AUXILIARY_RUN run=RUN ...
    python tools/campaign/starts.py floor=0.2 lediflow.evaluate mode=stages run=RUN sampler=SAMPLER_RUN ...

The start is not recorded in the run: sample and evaluate it with the same start. Each is combined with
stage.prior_widening=s and stage.prior_scale=k.

floor=f        N(mu, k^2 max(sigma, f)^2 + s^2): no entry narrower than f
octaves=a      the added noise is not white: each halving of frequency has 2^a times the amplitude, while the total
               deviation is still s (a guess of how the spectrum of the prior's residual falls, which was not measured;
               arXiv:2509.02971 requires noise as rough as the data in every band)
interpolant=c  x_t = (1 - t) x_0 + t y + 4 c t (1 - t) n, target y - x_0 + 4 c (1 - 2 t) n: noise of deviation c at
               t = 1/2 (stochastic interpolants, Albergo et al. 2023, arXiv:2303.08797; injection, arXiv:2510.06634)
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch import Tensor

from lediflow.flow import gaussians
from lediflow.flow.path import path_velocity, point_on_path

WIDENED = ("lediflow.stages.flow.widen", "lediflow.sampling.chain.widen")
DRAWN = ("lediflow.stages.flow.sample", "lediflow.sampling.chain.sample")


def floored(at: float) -> Callable[[Tensor, float, float], Tensor]:
    lowest = 2 * torch.tensor(at).log().item()
    return lambda logvar, widening, scale: gaussians.widen(logvar.clamp(min=lowest), widening, scale)


def rough(octaves: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Draws with more noise at low frequencies; its standard deviation is still 1."""

    def drawn(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        return gaussians.sample(mean, logvar, coloured(noise, octaves))

    return drawn


def coloured(noise: Tensor, octaves: float) -> Tensor:
    """White noise (..., height, width) made proportional to frequency^-octaves, of deviation 1.

    The mean, which has no frequency, is treated as the lowest one.
    """
    height, width = noise.shape[-2:]
    rows = torch.fft.fftfreq(height, device=noise.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=noise.device)[None, :]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / max(height, width))
    gain = frequency**-octaves
    all_columns = torch.fft.fftfreq(width, device=noise.device)[None, :]
    everywhere = (rows.square() + all_columns.square()).sqrt().clamp(min=1 / max(height, width))
    deviation = everywhere.pow(-2 * octaves).mean().sqrt()
    return torch.fft.irfft2(torch.fft.rfft2(noise) * gain / deviation, s=(height, width))


class NoisyPath:
    """A path with added noise, which is 0 at both ends, and its velocity. The noise uses torch's global seed."""

    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.noise = self.t = torch.empty(0)

    def point(self, x_0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        self.noise, self.t = torch.randn_like(y), t.view(-1, *[1] * (y.ndim - 1))
        return point_on_path(x_0, y, t) + 4 * self.peak * self.t * (1 - self.t) * self.noise

    def velocity(self, x_0: Tensor, y: Tensor) -> Tensor:
        return path_velocity(x_0, y) + 4 * self.peak * (1 - 2 * self.t) * self.noise


def replacements(name: str, value: float) -> dict[str, Callable[..., Tensor]]:
    """Replacements of the toolkit's functions for a start."""
    match name:
        case "floor":
            return dict.fromkeys(WIDENED, floored(value))
        case "octaves":
            return dict.fromkeys(DRAWN, rough(value))
        case "interpolant":
            path = NoisyPath(value)
            places = ("lediflow.stages.flow.point_on_path", "lediflow.stages.flow.path_velocity")
            return dict(zip(places, (path.point, path.velocity), strict=True))
    sys.exit(f"start {name} is not known; use floor, octaves or interpolant")


def main() -> None:
    start, module = sys.argv[1:3]
    name, value = start.split("=")
    sys.argv = [module, *sys.argv[3:]]
    with ExitStack() as stack:
        for place, stand_in in replacements(name, float(value)).items():
            stack.enter_context(patch(place, stand_in))
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
