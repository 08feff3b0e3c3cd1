"""Token grids merge and split; recomputing layers changes what is kept for the backward pass, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from harness.autograd import kept_bytes
from torch import nn

from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import Ranks
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.levels import (
    TokenMerge,
    TokenSplit,
    TokenSplitWithSkip,
    TransformerLayer,
    recompute_activations,
)
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

LAYERS = 2 * 2 + 3  # two before and two after the middle's three


def drawn(outer=2, middle=3):
    """Two levels of so many layers; the same weights each time, none left at zero."""
    levels = [
        LevelSpec(depth=outer, width=16, head_dim=8, kernel_size=3),
        LevelSpec(depth=middle, width=32, head_dim=16),
    ]
    mapping = MappingSpec(depth=1, width=16)
    spec = HourglassSpec(in_channels=3, out_channels=3, patch_size=2, levels=levels, mapping=mapping)
    torch.manual_seed(0)
    module = Hourglass(spec, attention_route="sdpa")
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return module


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


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 16, 16, generator=generator), torch.rand(3, generator=generator)


def loss_of(module):
    return module(*batch()).square().mean()


def loss_and_gradients(module):
    loss = loss_of(module)
    return [loss, *torch.autograd.grad(loss, list(module.parameters()))]


def layer_calls(module):
    """How often transformer layers run in one training step."""
    calls = []
    for part in module.modules():
        if isinstance(part, TransformerLayer):
            part.register_forward_pre_hook(lambda *_: calls.append(1))
    loss_of(module).backward()
    return len(calls)


@pytest.mark.parametrize("is_autocast", [False, True], ids=["float32", "bfloat16 autocast"])
def test_loss_and_gradients_are_the_same_bit_for_bit(is_autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        kept = loss_and_gradients(drawn())
        recomputed = loss_and_gradients(recompute_activations(drawn()))
    assert len(kept) == len(recomputed)
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))


@pytest.fixture
def fresh_compiler():
    """What was compiled for one test must neither serve nor disturb another."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_into_one_graph_the_gradients_are_the_same():
    module = recompute_activations(drawn(1, 1))  # tracing takes seconds a layer
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(loss_of(compiled), list(module.parameters()))
    expected = loss_and_gradients(drawn(1, 1))[1:]
    torch.testing.assert_close(list(gradients), expected, rtol=1e-5, atol=1e-7)  # order of sums


def test_every_layer_runs_once_more_in_the_backward_pass():
    assert layer_calls(drawn()) == LAYERS
    assert layer_calls(recompute_activations(drawn())) == 2 * LAYERS


def test_much_less_is_kept_for_the_backward_pass():
    kept, recomputing = drawn(), recompute_activations(drawn())
    assert kept_bytes(lambda: loss_of(recomputing)) < kept_bytes(lambda: loss_of(kept)) / 2


def test_it_can_be_switched_off_again():
    module = recompute_activations(recompute_activations(drawn()), recompute=False)
    assert layer_calls(module) == LAYERS
    assert kept_bytes(lambda: loss_of(module)) == kept_bytes(lambda: loss_of(drawn()))


def test_the_weights_keep_their_names():
    assert recompute_activations(drawn()).state_dict().keys() == drawn().state_dict().keys()


def test_without_gradients_layers_run_once():
    module, calls = recompute_activations(drawn()), []
    module.mid_level.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        torch.testing.assert_close(module(*batch()), drawn()(*batch()), rtol=0, atol=0)
    assert len(calls) == 1


def test_a_module_without_levels_is_refused():
    with pytest.raises(ValueError, match=r"Linear has no levels.*activation_checkpointing"):
        recompute_activations(nn.Linear(2, 2))


def engine_of(module, **config):
    groups = [{"params": list(module.parameters()), "lr": 1e-2, "weight_decay": 0.0}]
    options = EngineConfig(device="cpu", **config)
    return LocalEngine(module, groups, options, Ranks(), global_batch=3, betas=(0.9, 0.99))


def test_an_engine_that_recomputes_trains_the_same_weights():
    engines = [engine_of(drawn(), activation_checkpointing=choice) for choice in (False, True)]
    for engine in engines:
        engine.backward(loss_of(engine.module))
        engine.step(1.0, {"ema": 0.9})
    kept, recomputed = (engine.weights.state_dict() for engine in engines)
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)
    assert layer_calls(engines[1].module) == 2 * LAYERS
