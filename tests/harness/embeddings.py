"""Unit vectors that tests of distances compare: spread out, or in clusters as features of pictures are."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(count: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    """In all directions; `shift` draws them towards one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, dim, generator=generator, dtype=torch.float64) + shift
    return torch.nn.functional.normalize(drawn, dim=1)


def clustered(count: int, dim: int, seed: int, clusters: int = 3, width: float = 1e-3) -> Tensor:
    """Close to a few centres, the same for all seeds, which come up unevenly often."""
    centres = spread(clusters, dim, seed=0)
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(torch.rand(clusters, generator=generator), count, True, generator=generator)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(centres[which] + width * noise, dim=1)
