"""Cost of the three models, computed from their specifications; conventions as in lediflow.nn.cost.

from lediflow.models.cost import model_cost
from lediflow.nn.cost import cost_table

print(cost_table(model_cost(spec, 256, 256)))
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from operator import mul

import torch

from lediflow.models.export import Spec
from lediflow.models.specs import (
    AuxiliarySpec,
    LatentSamplerSpec,
    VelocitySpec,
    latent_shape,
    sampler_hourglass,
    velocity_hourglass,
)
from lediflow.nn.cost import Cost, LevelCost, ModelCost, hourglass_cost
from lediflow.nn.cost.bricks import Memory, linear, norm, product
from lediflow.nn.cost.hourglass import image_head, level_cost
from lediflow.nn.specs import HourglassSpec


def model_cost(
    spec: Spec, height: int, width: int, *, dtype: torch.dtype = torch.bfloat16, recompute: bool = False
) -> ModelCost:
    """Cost of one height x width image; for a latent sampler, height and width are those of the latent."""
    if isinstance(spec, AuxiliarySpec):
        return auxiliary_cost(spec, height, width, Memory(dtype, recompute))
    if isinstance(spec, LatentSamplerSpec):
        return hourglass_cost(sampler_hourglass(spec), height, width, dtype=dtype, recompute=recompute)
    if isinstance(spec, HourglassSpec):
        return hourglass_cost(spec, height, width, dtype=dtype, recompute=recompute)
    whole = hourglass_cost(velocity_hourglass(spec), height, width, dtype=dtype, recompute=recompute)
    return replace(
        whole, besides={**whole.besides, **latent_tokens_cost(spec, whole.levels[-1], Memory(dtype))}
    )


def latent_tokens_cost(spec: VelocitySpec, middle: LevelCost, memory: Memory) -> dict[str, Cost]:
    """Cost of the map from z to the coarsest tokens, if the latent is an input there."""
    channels = spec.latent_channels_by("tokens")
    if not channels:
        return {}
    return {"latent": linear(middle.height * middle.width, channels, spec.levels[-1].width, memory)}


def auxiliary_cost(spec: AuxiliarySpec, height: int, width: int, memory: Memory) -> ModelCost:
    """Cost of encoder and decoder in one training pass."""
    latent = latent_shape(spec, height, width)  # ValueError for images that the levels do not divide
    sides = list(accumulate(spec.factors, mul, initial=spec.patch_size))
    grids = [(height // side, width // side) for side in sides]
    levels = [
        *(auxiliary_level("encoder", spec, index, grid, memory) for index, grid in enumerate(grids)),
        *reversed(
            [auxiliary_level("decoder", spec, index, grid, memory) for index, grid in enumerate(grids)]
        ),
    ]
    bounds = 1 if spec.logvar_ceiling is None else 2
    return ModelCost(
        levels,
        {
            "latent": latent_cost(spec, latent, memory),
            # the inputs of the two bounds of the log variance
            "prior": memory.statistics(bounds * spec.image_channels * height * width),
        },
    )


def auxiliary_level(
    half: str, spec: AuxiliarySpec, index: int, grid: tuple[int, int], memory: Memory
) -> LevelCost:
    """Cost of an encoder level with the map into it, or of a decoder level with the map out of it."""
    level, tokens = spec.levels[index], grid[0] * grid[1]
    patch = spec.image_channels * spec.patch_size**2
    if index == 0:
        into = linear(tokens, patch, level.width, memory)
        out_of = image_head(tokens, level.width, 2 * patch, memory)
    else:
        finer = spec.levels[index - 1].width * spec.factors[index - 1] ** 2
        into, out_of = linear(tokens, finer, level.width, memory), linear(tokens, level.width, finer, memory)
    resampling = into if half == "encoder" else out_of
    if spec.augmentation and index == (0 if half == "encoder" else len(spec.levels) - 1):
        resampling += linear(1, level.width, level.width, memory)  # linear map of the Fourier features
    return level_cost(f"{half} {index}", level, level.depth, grid, None, resampling, memory)


def latent_cost(spec: AuxiliarySpec, latent: tuple[int, int, int], memory: Memory) -> Cost:
    """Cost of the encoder's two heads, the draw from the posterior, and the decoder's first map."""
    channels, height, width = latent
    tokens, coarsest = height * width, spec.levels[-1].width
    mean = linear(tokens, coarsest, channels, memory)
    logvar = product(tokens, coarsest, channels)  # shares its input with the head of the mean
    draw = memory.statistics(2 * channels * tokens)  # standard deviation and noise
    opening = linear(tokens, channels, coarsest, memory)
    return norm(tokens, coarsest, None, memory) + mean + logvar + draw + opening
