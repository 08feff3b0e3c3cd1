"""Parts of an hourglass: transformer layers that share a token grid, and changes from one grid to the next.

A grid becomes coarser where a block of tokens is merged into one, and finer where a token is split into a block. Both
are a rearrangement and one linear map without bias; with a factor of 1 only the map remains.

With activation checkpointing (`recompute_activations`) a level stores only the input of each of its layers and
recomputes their activations in the backward pass. Outputs and gradients are unchanged, bit for bit. A training step
costs one more forward pass of the layers, and the backward pass holds the activations of one layer at a time.
Sources: HDiT, arXiv:2401.11605; activation checkpointing: Chen et al., arXiv:1604.06174.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lediflow.nn.attention import SelfAttention
from lediflow.nn.feedforward import FeedForward
from lediflow.nn.rope import Rotation, rotation
from lediflow.nn.shapes import Condition, SampleKeys, Tokens
from lediflow.nn.specs import LevelSpec


class TransformerLayer(nn.Module):
    """Self-attention over the tokens, then a feed-forward block on each token."""

    def __init__(self, level: LevelSpec, condition_width: int | None, route: str) -> None:
        super().__init__()
        self.self_attn = SelfAttention(level, condition_width, route)
        self.ff = FeedForward(level.width, level.feedforward_width, condition_width, level.dropout)

    def forward(
        self,
        x: Tokens,
        positions: Rotation,
        condition: Condition | None = None,
        keys: SampleKeys | None = None,
    ) -> Tokens:
        return self.ff(self.self_attn(x, positions, condition, keys), condition, keys)


class RecomputesLayers(nn.Module):
    """Base class of modules that call their layers through `run`."""

    is_recomputed = False

    def run(self, layer: nn.Module, *inputs: object) -> Tensor:
        """The layer's output; activations are stored or recomputed, as set by `recompute_activations`."""
        if not self.is_recomputed:
            return layer(*inputs)
        # dropout masks are computed from sample keys in the inputs: no generator state to restore
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)


class Level(RecomputesLayers):
    """The layers of one token grid; they share its rotary embedding."""

    def __init__(
        self, spec: LevelSpec, condition_width: int | None = None, route: str = "auto", merges: int = 0
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.merges = spec.num_heads, spec.head_dim, merges
        self.layers = nn.ModuleList(TransformerLayer(spec, condition_width, route) for _ in range(spec.depth))

    def forward(
        self,
        x: Tokens,
        condition: Condition | None = None,
        keys: SampleKeys | None = None,
        later: Condition | None = None,
    ) -> Tokens:
        """The tokens after all layers; the second half of them uses the condition `later` if one is given."""
        positions = rotation(
            x.shape[1], x.shape[2], self.num_heads, self.head_dim, like=x, merges=self.merges
        )
        half = (len(self.layers) + 1) // 2
        for place, layer in enumerate(self.layers):
            x = self.run(layer, x, positions, condition if later is None or place < half else later, keys)
        return x


def blocks_of(x: Tokens, factor: int) -> Tokens:
    """One token for each factor x factor block, with the channels of its tokens row by row."""
    return x.unflatten(2, (-1, factor)).unflatten(1, (-1, factor)).transpose(2, 3).flatten(3)


class TokenMerge(nn.Module):
    """Each factor x factor block of tokens becomes one token."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(in_width * factor**2, out_width, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        return self.proj(blocks_of(x, self.factor))


class TokenSplit(nn.Module):
    """Each token becomes a factor x factor block of tokens."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(in_width, out_width * factor**2, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        blocks = self.proj(x).unflatten(3, (self.factor, self.factor, -1)).transpose(2, 3)
        return blocks.flatten(3, 4).flatten(1, 2)


class TokenSplitWithSkip(TokenSplit):
    """A split, then a weighted mean with the finer level's tokens; the weight is learned, initially 1/2."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__(in_width, out_width, factor)
        self.fac = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tokens, skip: Tokens) -> Tokens:  # type: ignore[override]
        split = super().forward(x)
        return torch.lerp(skip, split, self.fac.to(split.dtype))


def recompute_activations(module: nn.Module, recompute: bool = True) -> nn.Module:
    """Make every level inside `module` recompute its layers in the backward pass; recompute=False turns this off."""
    levels = [part for part in module.modules() if isinstance(part, RecomputesLayers)]
    if not levels:
        raise ValueError(
            f"activation checkpointing: {type(module).__name__} has no levels of transformer layers to "
            f"recompute; leave activation_checkpointing off for it"
        )
    for level in levels:
        level.is_recomputed = recompute
    return module
