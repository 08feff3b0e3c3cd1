"""Matrix products of large layers in 8 bits, by torchao.

Both factors of a product are divided by their largest magnitude and rounded to 8-bit floating point numbers, in the
forward pass and in both products of the backward pass: activations and weights to E4M3, gradients of outputs to E5M2.
Sums are float32; weights, optimizer and averages stay as they are. The rounding makes the loss noisier: compare its
curve with that of bfloat16 before a long run.

Source: Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433; torchao's `float8` with tensorwise
dynamic scaling.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lediflow.errors import UserError
from lediflow.nn.low_precision import is_large, multiplies_in_float8


def check_float8(device: torch.device) -> None:
    """UserError for a device without 8-bit products."""
    if device.type == "cuda" and multiplies_in_float8(device):
        return
    found = torch.cuda.get_device_name(device) if device.type == "cuda" else f"a device of type {device.type}"
    raise UserError(
        f"engine.float8=true needs a GPU with products of 8-bit numbers (Ada, Hopper or newer), not {found}; use "
        "engine.float8=false"
    )


def use_float8(module: nn.Module, *, is_emulated: bool = False) -> nn.Module:
    """Let the large layers of a module multiply in 8 bits, in place; parameters stay the same objects and names.

    `is_emulated`: round to 8 bits, but multiply in float32, on any device.
    """
    torchao: Any = import_float8()
    config = torchao.Float8LinearConfig(emulate=is_emulated)
    converted: nn.Module = torchao.convert_to_float8_training(
        module, module_filter_fn=is_large, config=config
    )
    return converted


def import_float8() -> Any:
    """torchao's module, or a UserError that says how to install it."""
    try:
        from torchao import float8
    except ImportError as error:
        raise UserError(
            "engine.float8=true needs the package torchao; `pip install 'lediflow[float8]'`, or use engine.float8=false"
        ) from error
    return float8
