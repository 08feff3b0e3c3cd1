"""Costs computed from a specification, against torch's own counts on the network built from it."""

from dataclasses import replace

import pytest
import torch
from harness.autograd import kept_bytes_per_image
from torch.utils.flop_counter import FlopCounterMode

from lediflow.nn.cost import hourglass_cost
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.levels import recompute_activations
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

HEIGHT, WIDTH = 24, 32

FINE = LevelSpec(depth=2, width=32, head_dim=8, kernel_size=3)
MIDDLE = LevelSpec(depth=1, width=48, head_dim=16, kernel_size=5, d_ff=40)
COARSE = LevelSpec(depth=3, width=64, head_dim=16)


def spec_of(*levels, **changes):
    fields = {"in_channels": 3, "out_channels": 5, "patch_size": 2, "levels": list(levels)}
    return HourglassSpec(**(fields | {"mapping": MappingSpec(depth=2, width=24)} | changes))


SPECS = {
    "three levels": spec_of(FINE, MIDDLE, COARSE),
    "one global level": spec_of(COARSE),
    "patches of one pixel": spec_of(FINE, COARSE, patch_size=1),
    "every input": spec_of(FINE, COARSE, num_classes=7, conditioning_dim=11, augmentation=True),
    "mostly feed-forward": spec_of(replace(FINE, d_ff=400)),
    "with dropout": spec_of(replace(FINE, dropout=0.1), replace(COARSE, dropout=0.2)),
    "mostly condition": spec_of(FINE, patch_size=8, mapping=MappingSpec(depth=4, width=96)),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def forward(module, batch_size, dtype=torch.float32):
    """One pass with every input that the specification names, on the module's device."""
    spec, device = module.spec, next(module.parameters()).device
    inputs = {
        "labels": torch.zeros(batch_size, dtype=torch.long, device=device) if spec.num_classes else None,
        "conditioning": torch.zeros(batch_size, spec.conditioning_dim, dtype=dtype, device=device)
        if spec.conditioning_dim
        else None,
        "dropout": torch.arange(batch_size, device=device),
    }
    x = torch.zeros(batch_size, spec.in_channels, HEIGHT, WIDTH, dtype=dtype, device=device)
    return module(x, torch.zeros(batch_size, device=device), **inputs)


def counted_flops(spec):
    """By torch, on tensors without memory; the dense route multiplies exactly the keys of each window."""
    with torch.device("meta"):
        module = Hourglass(spec, attention_route="dense")
    with FlopCounterMode(display=False) as counter:
        forward(module, 1)
    return counter.get_total_flops()


def cost(spec, **options):
    return hourglass_cost(spec, HEIGHT, WIDTH, **options)


@each_spec
def test_flops_are_those_that_torch_counts(spec):
    assert cost(spec).total.flops == counted_flops(spec)


@each_spec
def test_parameters_are_those_of_the_network(spec):
    assert cost(spec).total.parameters == sum(p.numel() for p in Hourglass(spec).parameters())


@each_spec
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activation_memory_is_what_autograd_keeps(spec, dtype, recompute):
    module = recompute_activations(Hourglass(spec, attention_route="sdpa").to(dtype), recompute)
    measured = kept_bytes_per_image(lambda batch_size: forward(module, batch_size, dtype))
    # plain operations agree to the byte; where some are fused, somewhat less is kept
    assert cost(spec, dtype=dtype, recompute=recompute).total.kept_bytes == pytest.approx(measured, rel=0.2)


def test_a_training_step_is_three_forward_passes():
    with torch.device("meta"):
        module = Hourglass(SPECS["three levels"], attention_route="dense")
    with FlopCounterMode(display=False) as counter:
        forward(module, 1).sum().backward()
    # the first map's input is an image, which needs no gradient: less than 1 % of the whole
    assert cost(module.spec).training_flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_recomputing_changes_the_memory_alone():
    kept, recomputed = (cost(SPECS["three levels"], recompute=choice).total for choice in (False, True))
    assert (kept.flops, kept.parameters) == (recomputed.flops, recomputed.parameters)
    assert recomputed.kept_bytes < kept.kept_bytes / 4


def test_a_window_as_large_as_the_grid_costs_what_global_attention_costs():
    windowed = hourglass_cost(spec_of(replace(COARSE, kernel_size=8)), 16, 16)
    assert windowed.total == hourglass_cost(spec_of(COARSE), 16, 16).total


def test_attention_cost_grows_linearly_for_windows_and_quadratically_for_global():
    small, large = (
        hourglass_cost(SPECS["three levels"], factor * HEIGHT, factor * WIDTH) for factor in (1, 2)
    )
    growth = [
        b.attention_core.flops / a.attention_core.flops
        for a, b in zip(small.levels, large.levels, strict=True)
    ]
    assert growth == [4, 4, 16]


def test_an_image_that_the_levels_cannot_tile_is_refused():
    with pytest.raises(ValueError, match=r"image of 20x20.*multiples of 8"):
        hourglass_cost(SPECS["three levels"], 20, 20)
