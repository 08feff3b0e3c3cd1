"""The reference engine against a training loop written out by hand."""

import pytest
import torch
from harness.states import whole_state
from torch import nn

from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError

BETA_1, BETA_2, EPS = 0.9, 0.99, 1e-8
RATES, DECAYS = (1e-2, 3e-3), (0.1, 0.0)


class Tiny(nn.Module):
    """Two layers, each in an optimizer group of its own, and a buffer that is drawn once."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 1)
        self.register_buffer("frequencies", torch.randn(3))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x * self.frequencies)))


def groups_of(module):
    layers = zip((module.first, module.second), RATES, DECAYS, strict=True)
    return [{"params": [*layer.parameters()], "lr": lr, "weight_decay": decay} for layer, lr, decay in layers]


def engine_of(module, batch=8, **config):
    options = EngineConfig(**({"device": "cpu", "gradient_clip": 0.0} | config))
    return LocalEngine(
        module, groups_of(module), options, Ranks(), global_batch=batch, betas=(BETA_1, BETA_2)
    )


@pytest.fixture
def data():
    random = torch.Generator().manual_seed(1)
    return torch.randn(5, 8, 3, generator=random), torch.randn(5, 8, 1, generator=random)


def loss_of(module, x, y):
    return (module(x) - y).square().mean()


def train(engine, data, steps=slice(None), factor=1.0, ema_decay=0.9):
    """Steps over the batches, each split as the engine wants it; returns the gradient norms."""
    norms = []
    for x, y in zip(data[0][steps], data[1][steps], strict=True):
        for part_x, part_y in zip(x.split(engine.micro_batch), y.split(engine.micro_batch), strict=True):
            engine.backward(loss_of(engine.module, part_x, part_y))
        norms.append(float(engine.step(factor, {"ema": ema_decay})))
    return norms


def by_hand(module, data, factor=1.0, clip=None):
    """AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), line by line."""
    rates = {
        p: (lr * factor, decay)
        for g, lr, decay in zip(groups_of(module), RATES, DECAYS, strict=True)
        for p in g["params"]
    }
    first = {p: torch.zeros_like(p) for p in rates}
    second = {p: torch.zeros_like(p) for p in rates}
    for step, (x, y) in enumerate(zip(*data, strict=True), start=1):
        gradients = torch.autograd.grad(loss_of(module, x, y), list(rates))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        scale = 1.0 if clip is None else min(1.0, clip / norm)
        with torch.no_grad():
            for (p, (lr, decay)), g in zip(rates.items(), gradients, strict=True):
                g = g * scale
                p.mul_(1 - lr * decay)
                first[p] = BETA_1 * first[p] + (1 - BETA_1) * g
                second[p] = BETA_2 * second[p] + (1 - BETA_2) * g.square()
                unbiased_1, unbiased_2 = first[p] / (1 - BETA_1**step), second[p] / (1 - BETA_2**step)
                p.sub_(lr * unbiased_1 / (unbiased_2.sqrt() + EPS))
    return module


def assert_same_weights(left, right, **tolerance):
    for (name, a), b in zip(left.state_dict().items(), right.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_steps_are_those_of_adamw_with_each_groups_own_rate(data, factor):
    engine = engine_of(Tiny())
    train(engine, data, factor=factor)
    # float32 rounding
    assert_same_weights(engine.weights, by_hand(Tiny(), data, factor), rtol=1e-5, atol=1e-7)


def test_the_whole_gradient_is_clipped_and_its_norm_before_that_reported(data):
    engine = engine_of(Tiny(), gradient_clip=0.1)
    norms = train(engine, data)
    assert min(norms) > 0.1
    assert_same_weights(engine.weights, by_hand(Tiny(), data, clip=0.1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulated_micro_batches_are_one_big_batch(data, micro_batch):
    whole, parts = engine_of(Tiny()), engine_of(Tiny(), micro_batch=micro_batch)
    assert parts.accumulation == 8 // micro_batch
    torch.testing.assert_close(train(whole, data), train(parts, data), rtol=1e-5, atol=0)
    assert_same_weights(whole.weights, parts.weights, rtol=1e-4, atol=1e-6)  # only the order of sums differs


def test_a_learning_rate_of_zero_does_not_change_the_weights(data):
    engine = engine_of(Tiny())
    train(engine, data, factor=0.0)
    assert_same_weights(engine.weights, Tiny(), rtol=0, atol=0)


def test_a_loaded_state_continues_bit_for_bit(data):
    undisturbed, stopped = engine_of(Tiny()), engine_of(Tiny())
    train(undisturbed, data)
    train(stopped, data, slice(0, 3))
    continued = engine_of(Tiny(seed=7))  # other weights and another buffer: all must come from the state
    continued.load(whole_state(stopped))
    train(continued, data, slice(3, None))
    expected, found = undisturbed.state(), continued.state()
    assert found.steps == expected.steps == 5
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def test_a_captured_state_is_not_changed_by_further_training(data):
    engine = engine_of(Tiny())
    train(engine, data, slice(0, 1))
    state = engine.state()
    kept = {name: tensor.clone() for name, tensor in state.tensors.items()}
    train(engine, data, slice(1, None))
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in kept.items())


def test_a_state_names_every_tensor_by_its_role():
    roles = {name.split("/")[0] for name in engine_of(Tiny()).state().tensors}
    assert roles == {"weight", "exp_avg", "exp_avg_sq", "ema", "buffer"}


def test_pieces_are_whole_tensors_laid_flat():
    state = engine_of(Tiny()).state()
    assert state.extents["weight/first.weight"] == (0, (4, 3))
    assert state.tensors["weight/first.weight"].shape == (12,)


def test_averages_follow_their_own_decays(data):
    engine = engine_of(Tiny())
    train(engine, data, ema_decay=1.0)  # an average that never moves
    averages = {
        name: tensor for name, tensor in whole_state(engine).tensors.items() if name.startswith("ema/")
    }
    fresh = dict(Tiny().named_parameters())
    assert all(torch.equal(tensor, fresh[name.removeprefix("ema/")]) for name, tensor in averages.items())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_step_without_a_finite_gradient_changes_nothing_and_training_continues(data, poison):
    engine, undisturbed = engine_of(Tiny()), engine_of(Tiny())
    train(engine, data, slice(0, 2))
    engine.backward(loss_of(engine.module, data[0][2], data[1][2]) * poison)
    assert not engine.step(1.0, {"ema": 1.0}).isfinite()
    train(engine, data, slice(2, None))
    train(undisturbed, data)
    for name, tensor in undisturbed.state().tensors.items():
        if not name.startswith("ema/"):  # which went on averaging
            assert torch.equal(engine.state().tensors[name], tensor), name
    assert engine.state().steps == 5


def test_moments_and_averages_that_were_not_saved_start_from_zero_and_the_weights(data):
    trained, engine = engine_of(Tiny()), engine_of(Tiny(seed=7))
    train(trained, data)
    whole = whole_state(trained)
    whole.shapes = {key: shape for key, shape in whole.shapes.items() if key.startswith(("weight", "buffer"))}
    engine.load(whole)
    found = engine.state().tensors
    assert torch.equal(found["ema/first.bias"], whole.read("weight/first.bias"))
    assert not found["exp_avg/first.bias"].any()


def test_bfloat16_multiplies_in_bfloat16_and_keeps_weights_in_float32(data):
    engine = engine_of(Tiny(), precision="bfloat16")
    assert engine.module(data[0][0]).dtype == torch.bfloat16
    train(engine, data)
    assert {weight.dtype for weight in engine.weights.parameters()} == {torch.float32}
    coarse = by_hand(Tiny(), data)
    assert_same_weights(engine.weights, coarse, rtol=0.2, atol=0.02)  # bfloat16 keeps 8 bits


def test_several_ranks_are_refused_with_the_engine_that_takes_them():
    with pytest.raises(UserError, match=r"2 ranks; use engine=deepspeed"):
        LocalEngine(
            Tiny(),
            groups_of(Tiny()),
            EngineConfig(),
            Ranks(world_size=2),
            global_batch=8,
            betas=(BETA_1, BETA_2),
        )
