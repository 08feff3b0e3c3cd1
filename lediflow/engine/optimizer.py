"""AdamW that leaves the weights alone when the gradient is not finite, without asking the host.

The fused implementations read `found_inf` on the device, as gradient scalers use it: 1 means that neither weights nor
moments nor the count of steps change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.engine.pieces import MOMENTS


def adamw(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), one kernel for all weights of a group."""
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def create_moments(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor]) -> None:
    """Adam's state, which torch creates at the first step only: a continued run must fill it before."""
    for weight in weights:
        moments = {moment: torch.zeros_like(weight) for moment in MOMENTS}
        optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}


def steps_made(optimizer: torch.optim.Optimizer) -> int:
    """Steps that changed the weights; waits for the device."""
    return int(next(iter(optimizer.state.values()))["step"].item()) if optimizer.state else 0


def set_steps_made(optimizer: torch.optim.Optimizer, steps: int) -> None:
    for state in optimizer.state.values():
        state["step"].fill_(steps)


def leave_out_unless_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Tell the optimizer what to do at its next step, on the device."""
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = (~norm.isfinite()).to(torch.float32)  # type: ignore[attr-defined]


@torch.no_grad()
def clip_gradient(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale the whole gradient to a norm of at most `most` (0: any); returns the norm before, on the device."""
    norm = nn.utils.clip_grad_norm_(weights, most or torch.inf)
    leave_out_unless_finite(optimizer, norm)
    return norm
