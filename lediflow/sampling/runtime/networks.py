"""The networks of a chain as functions of tensors, with float32 results, and their eager form.

    velocity(x, t, z, labels, s)       velocity of the flow; z is None for the Gaussian baseline
    prior(z)                           mean and log variance that the auxiliary model predicts
    latent_velocity(w, t, s, labels)   velocity of the latent sampler

The velocities of a compiled network also have `prepare` and `at`, for times that are known before (compiled.py).

Labels are None for no class. s, the second time, is for flow maps only, and None or left out otherwise. Times are
scalars in float32 in every precision: times that differ in the third digit are equal in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Networks(NamedTuple):
    """What a chain calls; None where it has no such model, as the Gaussian baseline has no prior."""

    velocity: Callable[..., Tensor] | None
    prior: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    latent_velocity: Callable[..., Tensor] | None


class Part(nn.Module):
    """A model as a chain calls it; a model that is not a working copy, under bfloat16 autocast if `is_rounded`."""

    def __init__(self, model: nn.Module, is_rounded: bool = False) -> None:
        super().__init__()
        self.model, self.is_rounded = model, is_rounded

    def autocast(self, like: Tensor) -> AbstractContextManager[Any]:
        # not entered for nothing: PyTorch caches no graph that enters it
        return torch.autocast(like.device.type, torch.bfloat16) if self.is_rounded else nullcontext()

    def inputs(self, x: Tensor, times: Sequence[Tensor], z: Tensor | None) -> tuple[Tensor | None, ...]:
        """The inputs of a velocity's `forward` at a time, or between two, without classes."""
        return x, *times


class VelocityPart(Part):
    def inputs(self, x: Tensor, times: Sequence[Tensor], z: Tensor | None) -> tuple[Tensor | None, ...]:
        t, *later = times
        return x, t, z, None, *later

    def forward(
        self, x: Tensor, t: Tensor, z: Tensor | None, labels: Tensor | None, s: Tensor | None = None
    ) -> Tensor:
        more = {name: value for name, value in (("labels", labels), ("s", s)) if value is not None}
        with self.autocast(x):
            slope: Tensor = self.model(x, t, z=z, **more)
        return slope.float()


class PriorPart(Part):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # a plain tuple: what packages can return
        with self.autocast(z):
            mean, logvar = self.model.decode(z)  # type: ignore[operator]
        return mean.float(), logvar.float()


class LatentVelocityPart(Part):
    def forward(self, w: Tensor, t: Tensor, s: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        more = {name: value for name, value in (("labels", labels), ("s", s)) if value is not None}
        with self.autocast(w):
            slope: Tensor = self.model(w, t, **more)
        return slope.float()


class ConditionedPart(Part):
    """A velocity at conditions that were computed before; see conditions.py."""

    def forward(
        self, x: Tensor, condition: Tensor, later: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        more = {} if z is None else {"z": z}
        with self.autocast(x):
            slope: Tensor = self.model.conditioned(x, condition, later, **more)  # type: ignore[operator]
        return slope.float()

    @torch.no_grad()
    def conditions(self, times: Tensor, z: Tensor | None = None) -> tuple[Tensor, ...]:
        """The condition at each time, one row for each z, or one row if there is none."""
        rows, more = (1, ()) if z is None else (len(z), (z.repeat(len(times), *[1] * (z.ndim - 1)),))
        with self.autocast(times):
            repeated = times[:, None].expand(-1, rows).flatten()
            found: Tensor = self.model.condition(repeated, *more)  # type: ignore[operator]
        return found.unflatten(0, (len(times), rows)).unbind()


KINDS: dict[str, type[Part]] = {
    "velocity": VelocityPart,
    "prior": PriorPart,
    "latent_velocity": LatentVelocityPart,
}
MODELS = {"velocity": "velocity", "prior": "auxiliary", "latent_velocity": "latent_sampler"}  # part -> model


def networks_of(models: Mapping[str, nn.Module], prepare: Callable[[str, nn.Module], Any]) -> Networks:
    """`prepare(name, model)` of each part whose model exists; `models` are those of a pipeline by name."""
    prepared = {name: prepare(name, models[model]) for name, model in MODELS.items() if model in models}
    return Networks(prepared.get("velocity"), prepared.get("prior"), prepared.get("latent_velocity"))


def eager_networks(models: Mapping[str, nn.Module], precision: str) -> Networks:
    """The models themselves, without copies: changes of their weights take effect at once."""
    return networks_of(models, lambda name, model: KINDS[name](model, is_rounded=precision == "bfloat16"))
