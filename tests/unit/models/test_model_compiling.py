"""torch.compile takes each model whole: one graph, forward and backward, for any batch size."""

from dataclasses import replace

import pytest
import torch
from harness.drawn_models import drawn_model
from torch._dynamo import mark_dynamic
from torch._dynamo.testing import CompileCounterWithBackend

from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
)

pytestmark = pytest.mark.slow
# Tracing takes seconds a layer, so there is one layer a level, and every kind of operation in one model at least: the
# flow model has changes of the grid and two grids, whose masks one graph must tell apart; the latent sampler has a
# global level with dropout.
LOCAL = LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3)
GLOBAL = LevelSpec(depth=1, width=16, head_dim=8)
MAPPING = MappingSpec(depth=1, width=16)
SPECS = {
    "auxiliary": AuxiliarySpec(image_channels=3, patch_size=4, levels=[LOCAL]),
    "velocity": VelocitySpec(
        image_channels=3,
        patch_size=2,
        levels=[LOCAL, LOCAL],
        mapping=MAPPING,
        latent_shape=[4, 4, 4],
        num_classes=5,
    ),
    "latent_sampler": LatentSamplerSpec(levels=[replace(GLOBAL, dropout=0.2)], mapping=MAPPING),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    """What was compiled for one test must neither serve nor disturb another."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def inputs_of(kind, batch_size, height=16, width=16):
    generator = torch.Generator().manual_seed(batch_size)
    image = torch.randn(batch_size, 3, height, width, generator=generator)
    # one token for each 4 x 4 pixels in the auxiliary model; the other models take one size of latents
    size = (height // 4, width // 4) if kind == "auxiliary" else (4, 4)
    latent = torch.randn(batch_size, 4, *size, generator=generator)
    t = torch.rand(batch_size, generator=generator)
    labels = torch.arange(batch_size) % 5
    keys = torch.randint(-(2**63), 2**63 - 1, (batch_size,), generator=generator)  # of dropout's masks
    return {
        "auxiliary": (image, latent, keys),
        "velocity": (image, t, latent, labels, keys),
        "latent_sampler": (latent, t, keys),
    }[kind]


def loss_and_gradients(call, module, inputs):
    output = call(*inputs)
    image = output.prior.mean + output.prior.logvar if hasattr(output, "prior") else output
    loss = image.square().mean()
    return [loss, *torch.autograd.grad(loss, list(module.parameters()))]


def assert_same_training_pass(call, module, inputs):
    found, expected = (loss_and_gradients(function, module, inputs) for function in (call, module))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # the order of sums


@pytest.mark.parametrize("kind", ["auxiliary", "velocity"])
def test_a_model_is_one_graph_for_any_batch_size_forward_and_backward(kind):
    module = drawn_model(SPECS[kind])
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=graphs)
    for batch_size in (3, 5, 2):
        inputs = inputs_of(kind, batch_size)
        for tensor in inputs:
            mark_dynamic(tensor, 0)  # an error if the graph holds for this batch size alone
        assert_same_training_pass(compiled, module, inputs)
    assert graphs.frame_count == 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("auxiliary", {}), ("velocity", {"conditioning": "concat", "levels": [LOCAL]})],
    ids=["auxiliary", "velocity conditioned by concat"],
)
def test_a_compiled_model_takes_images_of_another_size(kind, changes):
    module = drawn_model(replace(SPECS[kind], **changes))
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        for height, width in ((16, 16), (24, 40)):
            inputs = inputs_of(kind, 2, height, width)
            torch.testing.assert_close(compiled(*inputs), module(*inputs))


def test_conditioning_by_latent_tokens_compiles_into_one_graph():
    module = drawn_model(replace(SPECS["velocity"], conditioning="tokens", levels=[GLOBAL]))
    inputs = inputs_of("velocity", 3)
    with torch.no_grad():
        found, expected = torch.compile(module, fullgraph=True, backend="eager")(*inputs), module(*inputs)
    torch.testing.assert_close(found, expected)


def test_two_batch_sizes_are_enough_for_a_graph_of_any_size():
    module = drawn_model(SPECS["latent_sampler"])
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=graphs)
    for batch_size in (3, 5, 2, 7, 4):
        assert_same_training_pass(compiled, module, inputs_of("latent_sampler", batch_size))
    assert graphs.frame_count == 2  # for the first size alone, then for all


def test_code_generated_for_a_model_computes_what_the_model_does():
    module = drawn_model(SPECS["latent_sampler"])
    inputs = inputs_of("latent_sampler", 3)
    with torch.no_grad():
        found, expected = torch.compile(module, fullgraph=True)(*inputs), module(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # fused operations round elsewhere
