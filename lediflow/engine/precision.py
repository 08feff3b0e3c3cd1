"""Compute in bfloat16, keep what must stay exact in float32."""

from __future__ import annotations

import torch
from torch import nn

from lediflow.errors import UserError

PRECISIONS = ("float32", "bfloat16")


class Autocast(nn.Module):
    """Runs a module's matrix products in bfloat16: times and Fourier features stay in float32."""

    def __init__(self, module: nn.Module, device_type: str) -> None:
        super().__init__()
        self.inner = module
        self.device_type = device_type

    def forward(self, *args, **kwargs):
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.inner(*args, **kwargs)


def check_precision(precision: str) -> str:
    if precision not in PRECISIONS:
        raise UserError(f"engine.precision={precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    return precision


def computing_in(precision: str, module: nn.Module, device: torch.device, *, compile: bool) -> nn.Module:
    """The module as the training loop calls it: compiled if asked, under autocast if bfloat16."""
    if compile:
        module.compile()
    return Autocast(module, device.type) if check_precision(precision) == "bfloat16" else module
