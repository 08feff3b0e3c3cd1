import torch
import torch.nn.functional as F
from einops import rearrange

from lediflow.nn.resample import TokenMerge, TokenSplit, TokenSplitWithSkip


def with_identity(module):
    torch.nn.init.eye_(module.proj.weight)
    return module


def test_a_split_undoes_a_merge():
    x = torch.randn(2, 6, 4, 5)
    merge, split = with_identity(TokenMerge(5, 20)), with_identity(TokenSplit(20, 5))
    torch.testing.assert_close(split(merge(x)), x)


def test_a_merge_gathers_the_tokens_that_pixel_unshuffle_gathers():
    x = torch.randn(2, 6, 9, 5)
    merged = with_identity(TokenMerge(5, 45, factor=3))(x)
    expected = F.pixel_unshuffle(rearrange(x, "b h w c -> b c h w"), 3)
    torch.testing.assert_close(merged, rearrange(expected, "b (c pq) h w -> b h w (pq c)", pq=9))


def test_a_fresh_skip_weighs_both_ways_alike():
    split = with_identity(TokenSplitWithSkip(20, 5))
    x, skip = torch.randn(1, 2, 2, 20), torch.randn(1, 4, 4, 5)
    expected = (skip + with_identity(TokenSplit(20, 5))(x)) / 2
    torch.testing.assert_close(split(x, skip), expected)
