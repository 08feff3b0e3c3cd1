"""Counter-based random numbers: functions of (seed, stream name, sample id, index) only.

The k-th sample of a run gets the same draws in any batch, on any rank, after any restart, on CPU or GPU: integers are
equal bit for bit, normal draws up to the rounding of log and cos.

A counter is hashed, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); the hash is
the finaliser of splitmix64 (Steele et al., 2014), applied twice with two keys per sample. 64-bit words are
stored in int64 tensors, whose sums and products wrap around like those of unsigned words.
"""

import math
import zlib
from functools import lru_cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

Words = Int[Tensor, "*shape"]
Ids = Int[Tensor, " batch"]


def signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word


GOLDEN_GAMMA = signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads consecutive counters
MULTIPLIER_1 = signed(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = signed(0x94D049BB133111EB)

HAS_TRITON = find_spec("triton") is not None
BLOCK = 512  # words of a program of the kernel


class SampleNoise:
    """The random draws of a run, by sample id. Streams with different names are independent."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def normal(self, ids: Ids, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, " batch *shape"]:
        """Standard normal draws in float32."""
        return normal_draws(self.stream(name), ids, shape)

    def uniform(self, ids: Ids, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, " batch *shape"]:
        """Uniform draws in the open interval (0, 1), float32: midpoints of 2^23 equal cells."""
        return uniform_draws(self.stream(name), ids, shape)

    def words(self, ids: Ids, name: str) -> Int[Tensor, " batch"]:
        """One 64-bit word per sample: the key of random choices inside a model (dropout)."""
        return hashed_words(self.stream(name), ids, 1)[:, 0]

    def stream(self, name: str) -> int:
        """The number that stands for (seed, name) in the draws of a stream."""
        return stream_number(self.seed, name)


@lru_cache(maxsize=1024)
def stream_number(seed: int, name: str) -> int:
    """A hash of (seed, name), computed once: it takes 25 operations on the CPU, more than a draw has on a GPU."""
    return int(mix(mix(torch.tensor(signed(seed))) + zlib.crc32(name.encode())))


def normal_draws(
    stream: int | Int[Tensor, ""], ids: Ids, shape: tuple[int, ...]
) -> Float[Tensor, " batch *shape"]:
    """Standard normal draws in float32: Box-Muller, two normals per 64-bit word.

    As a tensor on the device of `ids`, `stream` is an input of whatever records the computation, not a constant.
    """
    if has_kernel(ids):
        return drawn_by_kernel(stream, ids, shape, is_normal=True)
    count = math.prod(shape)
    words = hashed_words(stream, ids, (count + 1) // 2)
    radius = (-2 * unit_interval(shift_right(words, 32), bits=32).log()).sqrt()
    angle = 2 * math.pi * unit_interval(words & 0xFFFFFFFF, bits=32)
    pairs = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
    return pairs[:, :count].reshape(len(ids), *shape)


def uniform_draws(
    stream: int | Int[Tensor, ""], ids: Ids, shape: tuple[int, ...]
) -> Float[Tensor, " batch *shape"]:
    """Uniform draws in the open interval (0, 1), float32; `stream` as in `normal_draws`."""
    if has_kernel(ids):
        return drawn_by_kernel(stream, ids, shape, is_normal=False)
    words = hashed_words(stream, ids, math.prod(shape))
    return unit_interval(shift_right(words, 41), bits=23).reshape(len(ids), *shape)


def has_kernel(ids: Ids) -> bool:
    """Whether the Triton kernel serves: on GPUs, and not inside a function that is being compiled."""
    return ids.is_cuda and HAS_TRITON and not torch.compiler.is_compiling()


def drawn_by_kernel(
    stream: int | Int[Tensor, ""], ids: Ids, shape: tuple[int, ...], *, is_normal: bool
) -> Float[Tensor, " batch *shape"]:
    """The draws by the kernel of noise_kernel.py."""
    from lediflow.flow.noise_kernel import draws

    count = math.prod(shape)
    words = (count + 1) // 2 if is_normal else count
    out = torch.empty(len(ids), *shape, device=ids.device)
    if not out.numel():
        return out
    in_tensor = isinstance(stream, Tensor)
    with torch.cuda.device_of(ids):
        draws[len(ids), -(-words // BLOCK)](
            ids.contiguous(), stream if in_tensor else ids, out, 0 if in_tensor else stream, count, words,
            IS_NORMAL=is_normal, IN_TENSOR=in_tensor, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    return out


def hashed_words(stream: int | Int[Tensor, ""], ids: Ids, count: int) -> Int[Tensor, "batch count"]:
    """`count` 64-bit words per sample."""
    key_1 = mix(stream + GOLDEN_GAMMA * (ids.long() + 1))
    key_2 = mix(key_1 + GOLDEN_GAMMA)
    counters = GOLDEN_GAMMA * torch.arange(1, count + 1, device=ids.device)
    return mix(mix(key_1[:, None] + counters) + key_2[:, None])


def mix(words: Words) -> Words:
    """splitmix64's finaliser: a bijection of 64-bit words; an input bit changes each output bit half the time."""
    words = (words ^ shift_right(words, 30)) * MULTIPLIER_1
    words = (words ^ shift_right(words, 27)) * MULTIPLIER_2
    return words ^ shift_right(words, 31)


def shift_right(words: Words, bits: int) -> Words:
    """Logical right shift (int64's own shift extends the sign)."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def unit_interval(words: Words, bits: int) -> Float[Tensor, "*shape"]:
    """Map integers below 2^bits to the midpoints of 2^bits cells of (0, 1), in float32."""
    return (words.to(torch.float32) + 0.5) * 2.0**-bits
