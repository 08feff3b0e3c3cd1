"""The derivative of a trained flow map along paths, which MeanFlow's target contains (lediflow/flow/maps.py).

It is computed by the bare model, not by the module that the engine wraps: with DDP and ZeRO a call of the wrapper is a
forward pass whose gradients are exchanged, and functional differentiation of it would leave that exchange out. The
derivative has no graph; gradients come from the wrapper's own pass. The bare model is not compiled, because code that
PyTorch 2.13 generates can lose a tangent without an error. For the same reason a run begins with a comparison of a
derivative with a finite difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.nn.forward_mode import central_difference, derivative, forward_mode

States = Float[Tensor, " batch *dims"]
Times = Float[Tensor, " batch"]
Inputs = Mapping[str, Tensor | None]  # of a network besides x and times, by name; None for none

STEP, TOLERANCE = 1e-5, 1e-3  # of the comparison with a finite difference, in float64


@dataclass(frozen=True)
class PathDerivative:
    """`path_derivative(x, t, s, velocity, inputs)`: du/dt of the mean velocity u(x, t, s) as x moves with a velocity.

    Computed in float32, or with products in bfloat16 if the weights are in bfloat16.
    """

    model: nn.Module

    def __call__(self, x: States, t: Times, s: Times, velocity: States, inputs: Inputs) -> States:
        return derivative(self.mean_velocity(s, inputs), (x, t), (velocity, torch.ones_like(t)))

    @property
    def is_rounded(self) -> bool:
        """Whether products are in bfloat16."""
        return next(self.model.parameters()).dtype == torch.bfloat16

    def mean_velocity(self, s: Times, inputs: Inputs) -> Callable[[States, Times], States]:
        """u(x, t, s) as a function of x and t."""

        def mean(x: States, t: Times) -> States:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.is_rounded):
                found: States = self.model.forward(x, t, s=s, **inputs)  # __call__ may be compiled
            return found.to(x.dtype)

        return mean

    def check(self, shape: tuple[int, ...], inputs: Inputs) -> None:
        """RuntimeError unless the derivative agrees with a finite difference; one that was lost, being 0, does not.

        It is compared at random states of this shape, whose first axis is the batch's, for a model in float64: the
        features of time turn so fast that steps must be small, which rounding in lower precision does not allow.
        """
        weight = next(self.model.parameters())
        generator = torch.Generator().manual_seed(0)
        x, velocity = (torch.randn(shape, generator=generator).to(weight) for _ in range(2))
        t, s = (x.new_full((len(x),), time) for time in (0.3, 0.8))
        mean, directions = self.mean_velocity(s, inputs), (velocity, torch.ones_like(t))
        found = derivative(mean, (x, t), directions)
        with forward_mode():  # not every route of attention takes float64
            expected = central_difference(mean, (x, t), directions, STEP)
        off, size = float((found - expected).norm()), float(expected.norm())
        if not off <= TOLERANCE * size:
            raise RuntimeError(
                f"the derivative of the model along a path is off by {off:.3g} of {size:.3g}, its finite difference: "
                "this PyTorch loses tangents on the way; use stage.objective=flow_map, which needs no derivative"
            )
