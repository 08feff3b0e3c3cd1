"""What the three models cost, against torch's counts, and the paper's two flow models against their known cost."""

from dataclasses import replace

import pytest
import torch
from harness.autograd import kept_bytes_per_image
from harness.commands import compose
from torch.utils.flop_counter import FlopCounterMode

from lediflow.models import AuxiliarySpec, LatentSamplerSpec, build_model, latent_shape
from lediflow.models.cost import cost_table, model_cost
from lediflow.models.specs import CONDITIONINGS
from lediflow.nn.levels import recompute_activations
from lediflow.stages.flow import velocity_spec

SIZE = 16
KINDS = [
    "auxiliary", "larger latent", "logvar ceiling", "augmented auxiliary", "vector", "concat", "tokens", "classes",
    "latent_sampler",
]  # fmt: skip


@pytest.fixture
def specs(auxiliary_spec, velocity_spec, latent_sampler_spec):
    """One tiny specification of every kind, and of every option that adds to the cost."""
    found = {
        "auxiliary": auxiliary_spec,
        "larger latent": replace(auxiliary_spec, halvings=0),
        "logvar ceiling": replace(auxiliary_spec, logvar_ceiling=2.0),
        "augmented auxiliary": replace(auxiliary_spec, augmentation=True),
        "classes": replace(velocity_spec, num_classes=5, augmentation=True),
        "latent_sampler": latent_sampler_spec,
    }
    return found | {way: replace(velocity_spec, conditioning=way) for way in CONDITIONINGS}


def size_seen_by(spec):
    """Side of what the model sees: the latent sampler sees 4 x 4 latents."""
    return 4 if isinstance(spec, LatentSamplerSpec) else SIZE


def inputs_of(spec, batch_size, size):
    """Zeros for every input of a model's training pass."""
    if isinstance(spec, AuxiliarySpec):
        images = torch.zeros(batch_size, spec.image_channels, size, size)
        return images, torch.zeros(batch_size, *latent_shape(spec, size, size))
    if isinstance(spec, LatentSamplerSpec):
        return torch.zeros(batch_size, spec.latent_channels, size, size), torch.zeros(batch_size)
    x, t = torch.zeros(batch_size, spec.image_channels, size, size), torch.zeros(batch_size)
    return (x, t, torch.zeros(batch_size, 4, 4, 4)) if spec.latent_dim else (x, t)


def counted_flops(spec, size):
    """By torch, on tensors without memory; the dense route multiplies exactly the keys of each window."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_model(spec, attention_route="dense")(*inputs_of(spec, 1, size))
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
def test_flops_and_parameters_are_those_that_torch_counts(specs, kind):
    spec = specs[kind]
    size = size_seen_by(spec)
    total = model_cost(spec, size, size).total
    assert total.flops == counted_flops(spec, size)
    assert total.parameters == sum(p.numel() for p in build_model(spec).parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16 autocast"])
def test_activation_memory_is_what_autograd_keeps(specs, kind, dtype, recompute):
    spec = specs[kind]
    size = size_seen_by(spec)
    module = recompute_activations(build_model(spec, attention_route="sdpa"), recompute)

    def forward(batch_size):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            module(*inputs_of(spec, batch_size, size))

    found = model_cost(spec, size, size, dtype=dtype, recompute=recompute).total.kept_bytes
    # plain operations agree to 0.2 % (autocast adds embeddings in float32); fused ones may keep somewhat less
    assert found == pytest.approx(kept_bytes_per_image(forward), rel=0.2)


@pytest.mark.parametrize(("model", "gigaflop"), [("paper_rgb", 119.6), ("paper_sdv", 88.5)])
def test_the_papers_flow_models_have_their_known_cost(model, gigaflop):
    command = compose("train", "experiment=smoke", f"model={model}", "data.path=a", "prior=gaussian")
    size = command.model.image_size
    spec = velocity_spec(command)
    total = model_cost(spec, size, size).total
    assert total.flops / 1e9 == pytest.approx(gigaflop, abs=0.05)  # the known values' last digit
    assert total.flops == counted_flops(spec, size)


@pytest.mark.parametrize("model", ["paper_rgb", "paper_sdv", "demo", "smoke"])
@pytest.mark.parametrize("kind", ["auxiliary", "velocity", "latent_sampler"])
def test_every_shipped_model_has_a_cost(model, kind):
    command = compose("train", "experiment=smoke", f"model={model}", "data.path=a")
    spec = getattr(command.model, kind)
    size = command.model.image_size
    if kind == "latent_sampler":
        size = latent_shape(command.model.auxiliary, size, size)[-1]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_model(spec).parameters())
    assert model_cost(spec, size, size).total.parameters == parameters


def test_an_image_that_the_auxiliary_levels_cannot_tile_is_refused(auxiliary_spec):
    with pytest.raises(ValueError, match=r"image of 18x18.*multiples of 4"):
        model_cost(auxiliary_spec, 18, 18)


def test_a_decoder_level_has_the_cost_of_the_encoder_level_except_for_its_ends(auxiliary_spec):
    levels = {level.name: level for level in model_cost(auxiliary_spec, SIZE, SIZE).levels}
    assert list(levels) == ["encoder 0", "encoder 1", "decoder 1", "decoder 0"]
    for index in (0, 1):
        encoder, decoder = levels[f"encoder {index}"], levels[f"decoder {index}"]
        assert encoder.attention_core == decoder.attention_core
        assert encoder.feed_forward == decoder.feed_forward


def test_the_table_has_a_row_for_each_part_and_the_total_below(specs):
    found = model_cost(specs["classes"], SIZE, SIZE)
    heads, *rows, total = cost_table(found).splitlines()
    assert [row.split("  ")[0] for row in rows] == ["level 0", "level 1", "condition"]
    assert heads.split()[:3] == ["part", "tokens", "layers"]
    assert total.split() == [
        "total",
        f"{found.total.parameters / 1e6:.3f}",
        f"{found.total.flops / 1e9:.3f}",
        f"{found.total.kept_bytes / 1e6:.2f}",
    ]
