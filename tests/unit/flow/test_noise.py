"""Noise belongs to the sample. That it is good noise too is tested in tests/numerics."""

import math
import zlib

import pytest
import torch

from lediflow.flow.noise import (
    MULTIPLIER_1,
    SampleNoise,
    drawn_by_kernel,
    mix,
    normal_draws,
    shift_right,
    signed,
    uniform_draws,
)

KINDS = ["normal", "uniform"]


def splitmix64_finaliser(word):
    """The published finaliser, in Python's integers."""
    mask = 2**64 - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


def test_the_hash_is_splitmix64s():
    words = [0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF]
    found = mix(torch.tensor([signed(word) for word in words]))
    assert found.tolist() == [signed(splitmix64_finaliser(word)) for word in words]


def test_shifts_are_unsigned():
    assert shift_right(torch.tensor([-1]), 60).item() == 15
    assert signed(0xBF58476D1CE4E5B9) == MULTIPLIER_1 < 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_samples_draw_does_not_depend_on_its_batch(kind):
    draw = getattr(SampleNoise(seed=3), kind)
    together = draw(torch.arange(100), "x", (3, 5))
    reordered = draw(torch.tensor([42, 7, 99]), "x", (3, 5))
    assert torch.equal(reordered, together[[42, 7, 99]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [(4, "x", 0), (3, "y", 0), (3, "x", 1)], ids=["seed", "name", "id"])
def test_seed_name_and_id_each_change_the_draw(kind, other):
    def draw(seed, name, sample_id):
        return getattr(SampleNoise(seed), kind)(torch.tensor([sample_id]), name, (64,))

    assert (draw(3, "x", 0) != draw(*other)).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 5, 7), (1500,), (0,)])
@pytest.mark.parametrize("is_tensor", [False, True])
def test_the_kernels_draws_are_those_of_the_definition(shape, is_tensor, interpreted):
    ids, stream = torch.tensor([0, 5, 2**40]), SampleNoise(3).stream("x")
    given = torch.tensor(stream, device=interpreted) if is_tensor else stream
    uniform, normal = (
        drawn_by_kernel(given, ids.to(interpreted), shape, is_normal=kind).cpu() for kind in (False, True)
    )
    assert torch.equal(uniform, uniform_draws(stream, ids, shape))
    torch.testing.assert_close(normal, normal_draws(stream, ids, shape), rtol=1e-5, atol=2e-6)


def first_word(seed, name, sample_id):
    """The first 64-bit word of a sample's stream, in Python's integers."""
    mix, gamma = splitmix64_finaliser, 0x9E3779B97F4A7C15
    stream = mix((mix(seed) + zlib.crc32(name.encode())) % 2**64)
    key_1 = mix((stream + gamma * (sample_id + 1)) % 2**64)
    key_2 = mix((key_1 + gamma) % 2**64)
    return mix((mix((key_1 + gamma) % 2**64) + key_2) % 2**64)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("sample_id", [0, 10**12])
def test_draws_are_the_documented_function_of_their_key(seed, sample_id):
    noise, ids, word = SampleNoise(seed), torch.tensor([sample_id]), first_word(seed, "x", sample_id)
    assert noise.uniform(ids, "x").item() == ((word >> 41) + 0.5) / 2**23
    radius = math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32))
    angle = 2 * math.pi * ((word % 2**32) + 0.5) / 2**32
    assert noise.normal(ids, "x").item() == pytest.approx(radius * math.cos(angle), abs=2e-6)  # float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 4), (0,)])
def test_draws_have_the_requested_shape(kind, shape):
    drawn = getattr(SampleNoise(seed=0), kind)(torch.arange(5), "x", shape)
    assert drawn.shape == (5, *shape)
    assert drawn.dtype == torch.float32


def test_uniform_draws_are_safe_for_a_logarithm():
    drawn = SampleNoise(seed=0).uniform(torch.arange(1000), "x", (1000,))
    assert drawn.min() > 0
    assert drawn.max() < 1
