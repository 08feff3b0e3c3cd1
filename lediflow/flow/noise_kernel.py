"""A Triton kernel of the draws in noise.py: one launch instead of sixty, the same integers.

It computes what `normal_draws` and `uniform_draws` compute, one program for a block of a sample's 64-bit words.
"""

import triton
import triton.language as tl

GOLDEN_GAMMA = tl.constexpr(-0x61C8864680B583EB)  # as in noise.py
MULTIPLIER_1 = tl.constexpr(-0x40A7B892E31B1A47)
MULTIPLIER_2 = tl.constexpr(-0x6B2FB644ECCEEE15)
TWO_PI = tl.constexpr(6.283185307179586)
LOW_23, LOW_32 = tl.constexpr(2**23 - 1), tl.constexpr(2**32 - 1)
LOW_33, LOW_34, LOW_37 = tl.constexpr(2**33 - 1), tl.constexpr(2**34 - 1), tl.constexpr(2**37 - 1)
CELL_23, CELL_32 = tl.constexpr(2.0**-23), tl.constexpr(2.0**-32)


@triton.jit
def mix(words):
    words = (words ^ ((words >> 30) & LOW_34)) * MULTIPLIER_1
    words = (words ^ ((words >> 27) & LOW_37)) * MULTIPLIER_2
    return words ^ ((words >> 31) & LOW_33)


@triton.jit
def draws(
    ids, stream, out, number, count, words,
    IS_NORMAL: tl.constexpr, IN_TENSOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`count` draws of each sample from `words` words; the stream is `number`, or in the tensor `stream`."""
    row = tl.program_id(0).to(tl.int64)
    sample = tl.load(ids + row).to(tl.int64)
    origin = tl.load(stream) if IN_TENSOR else tl.zeros((), tl.int64) + number
    key_1 = mix(origin + (sample + 1) * GOLDEN_GAMMA)
    key_2 = mix(key_1 + GOLDEN_GAMMA)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    word = mix(mix(key_1 + (place + 1).to(tl.int64) * GOLDEN_GAMMA) + key_2)
    target = out + row * count + place
    if IS_NORMAL:
        radius = tl.sqrt_rn(-2.0 * tl.log((((word >> 32) & LOW_32).to(tl.float32) + 0.5) * CELL_32))
        angle = TWO_PI * (((word & LOW_32).to(tl.float32) + 0.5) * CELL_32)
        tl.store(target, radius * tl.cos(angle), mask=place < words)
        tl.store(target + words, radius * tl.sin(angle), mask=place + words < count)
    else:
        tl.store(target, (((word >> 41) & LOW_23).to(tl.float32) + 0.5) * CELL_23, mask=place < count)
