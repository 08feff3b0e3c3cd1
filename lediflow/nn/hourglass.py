"""Hourglass diffusion transformer: fine levels around a coarse middle level; one condition vector for all layers.

    image -> patches -> [level -> merge] ... -> middle -> ... [split, mix with skip -> level] -> image

The auxiliary model's encoder and decoder use the same levels without a condition.

A flow map has a second time s: the levels on the way down and the first half of the middle use the condition of t, the
second half of the middle and the levels on the way up that of s. It has no parameters of its own, and with s = t it
computes what the hourglass without s computes.
Sources: HDiT, arXiv:2401.11605; equal to k-diffusion's `image_transformer_v2` output for output. Two times: Decoupled
MeanFlow, arXiv:2510.24474.
"""

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn

from lediflow.nn.dropout import number_places
from lediflow.nn.embeddings import ConditionEmbedding
from lediflow.nn.levels import Level, TokenMerge, TokenSplit, TokenSplitWithSkip
from lediflow.nn.norms import RMSNorm
from lediflow.nn.shapes import Condition, Image, SampleKeys, Tokens, image_of, time_per_sample, tokens_of
from lediflow.nn.specs import HourglassSpec, check_channels, check_grid


class Hourglass(nn.Module):
    """Maps an image to one of the same size, given a time and the other inputs of its specification."""

    def __init__(self, spec: HourglassSpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        width, last = spec.mapping.width, len(spec.levels) - 1

        def level(index: int) -> Level:
            return Level(spec.levels[index], width, attention_route, merges=index)

        self.condition = ConditionEmbedding(spec)
        self.patch_in = TokenMerge(spec.in_channels, spec.levels[0].width, spec.patch_size)
        self.down_levels = nn.ModuleList(map(level, range(last)))
        self.merges = nn.ModuleList(
            TokenMerge(fine.width, coarse.width) for fine, coarse in pairwise(spec.levels)
        )
        self.mid_level = level(last)
        self.splits = nn.ModuleList(
            TokenSplitWithSkip(coarse.width, fine.width) for fine, coarse in pairwise(spec.levels)
        )
        self.up_levels = nn.ModuleList(map(level, range(last)))
        self.out_norm = RMSNorm(spec.levels[0].width)
        self.patch_out = TokenSplit(spec.levels[0].width, spec.out_channels, spec.patch_size)
        nn.init.zeros_(self.patch_out.proj.weight)
        number_places(self)

    def forward(
        self,
        x: Image,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        labels: Int[Tensor, " batch"] | None = None,
        conditioning: Float[Tensor, "batch conditioning_dim"] | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
        middle: Tokens | None = None,
        dropout: SampleKeys | None = None,
        s: Float[Tensor, ""] | Float[Tensor, " batch"] | float | None = None,
    ) -> Image:
        """`t`, a scalar or one per sample, is the Fourier features' input: flow time, or k-diffusion's log(sigma) / 4.

        `middle` is added to the tokens that enter the coarsest level; the reference has no such input. `dropout` is
        one key per sample (`SampleNoise.words`), needed for training with dropout and ignored in evaluation mode.
        `s` is the second time of a flow map; None is s = t.
        """
        inputs = labels, conditioning, augmentation, dropout
        condition = self.condition(time_per_sample(t, x), *inputs)
        later = None if s is None else self.condition(time_per_sample(s, x, name="s"), *inputs)
        return self.conditioned(x, condition, later, middle, dropout)

    def conditioned(
        self,
        x: Image,
        condition: Condition,
        later: Condition | None = None,
        middle: Tokens | None = None,
        dropout: SampleKeys | None = None,
    ) -> Image:
        """The same for finished conditions, one per sample or one for all; `later` is that of the second time."""
        check_channels(x.shape[1], self.spec.in_channels, "in_channels")
        check_grid(self.spec.levels, self.spec.patch_size, *x.shape[-2:])
        tokens = self.patch_in(tokens_of(x))
        tokens = self.through_levels(tokens, condition, middle, dropout, later)
        return image_of(self.patch_out(self.out_norm(tokens)))

    def through_levels(
        self,
        x: Tokens,
        condition: Condition,
        middle: Tokens | None = None,
        keys: SampleKeys | None = None,
        later: Condition | None = None,
    ) -> Tokens:
        """`later` is the condition from the second half of the middle level on; None: `condition` everywhere."""
        skips = []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            x = level(x, condition, keys)
            skips.append(x)
            x = merge(x)
        x = self.mid_level(x if middle is None else x + middle, condition, keys, later)
        ways_up = zip(self.splits, skips, self.up_levels, strict=True)
        for split, skip, level in reversed(list(ways_up)):
            x = level(split(x, skip), condition if later is None else later, keys)
        return x
