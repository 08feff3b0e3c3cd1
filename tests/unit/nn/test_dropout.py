"""Dropout by sample: the masks' law, that they are the sample's own, and where a model applies them."""

import copy

import pytest
import torch
from torch import nn

from lediflow.flow.noise import SampleNoise
from lediflow.models import AuxiliarySpec, LevelSpec, MappingSpec, build_model
from lediflow.nn.attention import SelfAttention
from lediflow.nn.dropout import DropsEntries, drop, kept_entries
from lediflow.nn.feedforward import FeedForward
from lediflow.nn.levels import recompute_activations
from lediflow.nn.specs import HourglassSpec

NOISE = SampleNoise(seed=3)


def keys_of(*ids):
    return NOISE.words(torch.tensor(ids), "dropout")


def kept_by_hand(key, place, position, count, rate):
    """Whether an entry stays, in Python's integers: a word decides for one entry of each half of the sample."""
    mask, half = 2**32 - 1, (count + 1) // 2
    word = splitmix64_finaliser((key + place) % 2**64)
    low, high = word & mask, word >> 32
    x = (low + position % half * 0x9E3779B9) & mask
    x = ((x ^ x >> 16) * 0x7FEB352D & mask) ^ high
    x = (x ^ x >> 15) * 0x846CA68B & mask
    x ^= x >> 16
    bits = x >> 16 if position < half else x & 0xFFFF
    return (bits ^ 2**15) >= round(rate * 2**16)  # words are compared as signed


def splitmix64_finaliser(word):
    mask = 2**64 - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


@pytest.mark.parametrize("count", [1, 6, 7])
@pytest.mark.parametrize("place", [0, 1, -5, 2**62])
def test_masks_are_the_documented_function_of_key_place_and_position(count, place):
    keys = keys_of(0, 1, 10**12)
    found = kept_entries(keys, place, count, 0.3)
    for key, row in zip(keys.tolist(), found.tolist(), strict=True):
        assert row == [kept_by_hand(key, place, position, count, 0.3) for position in range(count)]


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_dropped_entries_is_the_rate(rate):
    count = 200_001
    kept = kept_entries(keys_of(0, 1, 2, 5000), 7, count, rate).double()
    tolerance = 5 * (rate * (1 - rate) / count) ** 0.5  # of a binomial share
    assert (1 - kept.mean(dim=1) - rate).abs().max() < tolerance
    for half in kept.chunk(2, dim=1):  # decided by other bits of the same words
        assert (1 - half.mean(dim=1) - rate).abs().max() < 2**0.5 * tolerance


def test_masks_of_other_samples_places_seeds_and_neighbouring_entries_are_independent():
    rate, count = 0.3, 100_000
    first = kept_entries(keys_of(0), 7, count, rate)[0]
    others = {
        "next sample": kept_entries(keys_of(1), 7, count, rate)[0],
        "far sample": kept_entries(keys_of(10**9), 7, count, rate)[0],
        "place": kept_entries(keys_of(0), 8, count, rate)[0],
        "seed": kept_entries(SampleNoise(4).words(torch.tensor([0]), "dropout"), 7, count, rate)[0],
        "next entry": first.roll(1),
        "next row": first.roll(256),
        "the word's other half": first.roll(count // 2),
    }
    agreement = rate**2 + (1 - rate) ** 2  # of two independent coins
    tolerance = 5 * (agreement * (1 - agreement) / count) ** 0.5
    for name, other in others.items():
        assert abs((first == other).double().mean() - agreement) < 1.5 * tolerance, name


def test_kept_entries_are_scaled_and_the_mean_stays():
    x = torch.ones(4, 100, 250)
    dropped = drop(x, 0.2, keys_of(0, 1, 2, 3), 1)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert dropped.mean().item() == pytest.approx(1.0, abs=5 * (0.25 / x.numel()) ** 0.5)
    assert torch.equal(x, torch.ones_like(x))


def test_the_mask_of_a_sample_does_not_depend_on_batch_or_layout():
    x = torch.rand(5, 6, 8) + 1
    together = drop(x, 0.4, keys_of(5, 4, 3, 2, 1), 9)
    alone = drop(x[3:4].reshape(1, 48), 0.4, keys_of(2), 9)
    assert torch.equal(alone.reshape(6, 8), together[3])


def test_the_gradient_is_masked_as_the_values_are():
    x = torch.rand(2, 50).requires_grad_()
    dropped = drop(x, 0.5, keys_of(0, 1), 1)
    dropped.sum().backward()
    assert torch.equal(x.grad, 2.0 * (dropped != 0))


# -- in models

LEVELS = [
    LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3, dropout=0.25),
    LevelSpec(depth=2, width=32, head_dim=16, d_ff=21, dropout=0.5),
]
SPECS = {
    "hourglass": HourglassSpec(
        in_channels=3,
        out_channels=3,
        patch_size=2,
        levels=LEVELS,
        mapping=MappingSpec(depth=2, width=16, dropout=0.1),
    ),
    "auxiliary": AuxiliarySpec(image_channels=3, patch_size=2, levels=LEVELS),
}


def drawn(kind):
    """The same weights each time, none left at zero."""
    torch.manual_seed(0)
    module = build_model(SPECS[kind], attention_route="sdpa")
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return module


def inputs_for(kind, ids):
    """Images and what else a model takes, each sample's own."""
    x = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in ids])
    other = (
        torch.tensor([0.1 * i for i in ids])
        if kind == "hourglass"
        else x[:, :1, :2, :2].expand(-1, 4, -1, -1)
    )
    return x, other


def output(kind, module, ids, keys="own"):
    keys = keys_of(*ids) if keys == "own" else keys
    result = module(*inputs_for(kind, ids), dropout=keys)
    return result if kind == "hourglass" else torch.cat((result.prior.mean, result.prior.logvar), dim=1)


def gradients(kind, module, ids):
    loss = output(kind, module, ids).square().mean(dim=(1, 2, 3)).mean()
    return torch.autograd.grad(loss, list(module.parameters()))


each_kind = pytest.mark.parametrize("kind", SPECS)


def masked_by_hand(module):
    """A copy without dropout, whose last projections of each block see their input masked entry by entry."""
    plain = copy.deepcopy(module)
    blocks = [part for part in plain.modules() if isinstance(part, SelfAttention | FeedForward)]
    for number, block in enumerate(blocks, start=1):
        rate, block.dropout = block.dropout, 0.0
        projection = block.out_proj if isinstance(block, SelfAttention) else block.down_proj
        place = number * 0x9E3779B97F4A7C15

        def mask(_, arguments, rate=rate, place=place):
            (x,) = arguments
            count = x[0].numel()
            rows = [
                [kept_by_hand(key, place, position, count, rate) for position in range(count)]
                for key in keys_of(4, 2).tolist()
            ]
            return (x * torch.tensor(rows).reshape(x.shape) / (1 - rate),)

        projection.register_forward_pre_hook(mask)
    return plain


@each_kind
def test_masks_are_applied_before_the_last_projection_of_every_block(kind):
    """After attention and after the gate, as k-diffusion's `image_transformer_v2` has them; in the mapping too."""
    module = drawn(kind)
    expected = output(kind, masked_by_hand(module), [4, 2])
    found = output(kind, module, [4, 2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # divided here, multiplied there


@each_kind
def test_the_gradient_of_a_batch_is_the_mean_of_its_samples(kind):
    module, ids = drawn(kind), [11, 4, 9, 30]
    parts = [gradients(kind, module, [i]) for i in ids]
    means = [torch.stack(part).mean(0) for part in zip(*parts, strict=True)]
    torch.testing.assert_close(list(gradients(kind, module, ids)), means, rtol=1e-4, atol=1e-6)


@each_kind
def test_recomputed_layers_drop_the_same_entries(kind):
    kept = gradients(kind, drawn(kind), [1, 2])
    recomputed = gradients(kind, recompute_activations(drawn(kind)), [1, 2])
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))


@each_kind
def test_in_evaluation_and_at_rate_0_nothing_is_dropped_to_the_bit(kind):
    module = drawn(kind)
    without = copy.deepcopy(module)
    for part in without.modules():
        if isinstance(part, DropsEntries):
            part.dropout = 0.0
    plain = output(kind, without, [1, 2], keys=None)
    assert torch.equal(output(kind, without, [1, 2]), plain)
    assert not torch.allclose(output(kind, module, [1, 2]), plain)
    assert torch.equal(output(kind, module.eval(), [1, 2], keys=None), plain)


@each_kind
def test_every_block_of_a_model_has_a_place_of_its_own(kind):
    places = [part.place for part in drawn(kind).modules() if isinstance(part, DropsEntries)]
    assert len(set(places)) == len(places) > 10 - 4 * (kind == "hourglass")
    assert 0 not in places


@each_kind
def test_training_without_keys_is_refused_with_both_remedies(kind):
    with pytest.raises(
        ValueError, match=r"dropout of 0\.\d+ in training.*dropout=SampleNoise.*model\.eval\(\)"
    ):
        output(kind, drawn(kind), [1], keys=None)


@pytest.mark.parametrize("keys", [torch.tensor([1]), torch.tensor([1.0, 2.0])], ids=["too few", "no words"])
def test_keys_that_are_not_one_word_a_sample_are_refused(keys):
    with pytest.raises(ValueError, match=r"for a batch of 2; give one word for each"):
        output("hourglass", drawn("hourglass"), [1, 2], keys=keys)


@pytest.mark.slow
def test_code_generated_for_the_masks_makes_the_same_masks():
    torch.compiler.reset()
    x, keys = torch.rand(3, 7, 31) + 1, keys_of(3, 2, 10**10)
    found = torch.compile(drop, fullgraph=True)(x, 0.3, keys, 2**62 + 5)
    torch.testing.assert_close(found, drop(x, 0.3, keys, 2**62 + 5))
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_gpu_makes_the_masks_of_a_cpu_bit_for_bit(compiled):
    keys = keys_of(0, 7, 10**12)
    make = torch.compile(kept_entries, fullgraph=True) if compiled else kept_entries
    for count, place in ((7, 1), (4096, -5), (100_001, 2**62 + 3)):
        assert torch.equal(make(keys.cuda(), place, count, 0.3).cpu(), kept_entries(keys, place, count, 0.3))
