"""Cost of the three models, computed from their specifications, and a table of it; conventions as in lediflow.nn.cost.

from lediflow.models.cost import cost_table, model_cost

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
from lediflow.nn.cost import (
    Cost,
    LevelCost,
    Memory,
    ModelCost,
    hourglass_cost,
    image_head,
    level_cost,
    linear,
    norm,
    product,
)
from lediflow.nn.specs import HourglassSpec
from lediflow.text import aligned_table

FLOP_HEADS = ("projections", "core", "feed-forward", "resampling")
HEADS = ("part", "tokens", "layers", "M parameters", "GFLOP", *FLOP_HEADS, "MB kept")


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


def cost_table(cost: ModelCost) -> str:
    """A text table of one image's forward pass, a row per level; the four columns after GFLOP add up to it."""
    rows = [level_row(level) for level in cost.levels]
    others = [*cost.besides.items(), ("total", cost.total)]
    rows += [
        [name, "", "", *figures(part), *[""] * len(FLOP_HEADS), megabytes(part)] for name, part in others
    ]
    return aligned_table([HEADS, *rows], right=[False] + [True] * (len(HEADS) - 1))


def level_row(level: LevelCost) -> list[str]:
    parts = (level.attention_projections, level.attention_core, level.feed_forward, level.resampling)
    grid = f"{level.height}x{level.width}"
    flops = [gigaflops(part) for part in parts]
    return [level.name, grid, str(level.layers), *figures(level.total), *flops, megabytes(level.total)]


def figures(cost: Cost) -> list[str]:
    return [f"{cost.parameters / 1e6:.3f}", gigaflops(cost)]


def gigaflops(cost: Cost) -> str:
    return f"{cost.flops / 1e9:.3f}"


def megabytes(cost: Cost) -> str:
    return f"{cost.kept_bytes / 1e6:.2f}"
