"""Models with all their matrices drawn, so that nothing they compute is trivially zero."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from lediflow.models import Spec, build_model

Module = TypeVar("Module", bound=nn.Module)


def drawn_model(spec: Spec, seed: int = 0, *, std: float = 0.2, route: str = "auto") -> nn.Module:
    """The model of a specification; the same seed gives the same model."""
    torch.manual_seed(seed)  # of the buffers
    return draw_matrices(build_model(spec, route), seed, std=std)


def draw_matrices(module: Module, seed: int = 0, *, std: float = 0.2) -> Module:
    """Draw every matrix of a module from N(0, std^2), in place."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std, generator=generator)
    return module
