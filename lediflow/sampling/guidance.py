"""Classifier-free guidance: scales the difference that a class makes to the velocity.

    v = v_0 + g (v_class - v_0)        v_0: the velocity without a class

The mean velocities of a flow map are scaled in the same way, which is exact in the limit of short jumps only.
Source: Ho & Salimans, arXiv:2207.12598, where g = 1 is the velocity of the class without guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True)
class GuidedVelocity:
    """Velocity function for a solver: binds the latents and classes of a batch, with guidance."""

    # (x, t, z, labels) -> velocity; of a flow map (x, t, z, labels, s) -> mean velocity from t to s
    model: Callable[..., Images]
    z: Float[Tensor, "batch latent_channels h w"] | None
    labels: Int64[Tensor, " batch"] | None  # None: no class
    guidance: float
    no_class: int = 0  # the label that means "no class", for guidance

    @property
    def evaluations(self) -> int:
        """Model evaluations per image in one call: 1 or 2."""
        return 2 if self.labels is not None and self.guidance not in (0, 1) else 1

    def __call__(self, x: Images, *times: Float[Tensor, ""] | Float[Tensor, " batch"]) -> Images:
        """The velocity at time t, or, for the times t and s, the mean velocity between them."""
        if self.evaluations == 2:
            return self.extrapolated(x, *times)
        t, *later = times
        return self.model(x, t, self.z, None if self.guidance == 0 else self.labels, *later)

    def extrapolated(self, x: Images, *times: Float[Tensor, ""] | Float[Tensor, " batch"]) -> Images:
        """The velocities without and with class, computed as one batch of twice the size."""
        assert self.labels is not None
        no_class = torch.full_like(self.labels, self.no_class)
        t, *later = (time if time.ndim == 0 else torch.cat((time, time)) for time in times)
        without, given = self.model(
            torch.cat((x, x)),
            t,
            None if self.z is None else torch.cat((self.z, self.z)),
            torch.cat((no_class, self.labels)),
            *later,
        ).chunk(2)
        return torch.lerp(without, given, self.guidance)


def labels_of(ids: Int64[Tensor, " batch"], labels: Sequence[int]) -> Int64[Tensor, " batch"] | None:
    """Image i gets labels[i % len(labels)]; None (no class) if the list is empty."""
    if not labels:
        return None
    return torch.tensor(labels, device=ids.device)[ids % len(labels)]
