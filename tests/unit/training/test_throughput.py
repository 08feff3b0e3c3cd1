"""FLOP/s and utilisation: work counted by torch itself, devices by their full names."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
    build_model,
)
from lediflow.models.specs import latent_shape
from lediflow.stages import STAGES
from lediflow.stages.auxiliary import AuxiliaryStage, AuxiliaryStageConfig
from lediflow.stages.flow import FlowStage, FlowStageConfig
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig
from lediflow.training.throughput import Throughput, parent_flops, peak_tflops, training_flops

SIZE = 16
LEVEL = LevelSpec(depth=1, width=64, head_dim=32)
AUXILIARY = AuxiliarySpec(image_channels=3, patch_size=2, levels=[LEVEL, LEVEL], latent_channels=4)
LATENT = latent_shape(AUXILIARY, SIZE, SIZE)
MAPPING = MappingSpec(depth=1, width=32)
VELOCITY = VelocitySpec(
    image_channels=3, patch_size=2, levels=[LEVEL], mapping=MAPPING, latent_shape=list(LATENT)
)
SAMPLER = LatentSamplerSpec(latent_channels=4, levels=[LEVEL], mapping=MAPPING)


@contextmanager
def counted():
    """torch's counter, with attention as the plain products that it can see on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def stages():
    torch.manual_seed(0)
    parent = build_model(AUXILIARY)
    return {
        "auxiliary": (
            AuxiliaryStage(AuxiliaryStageConfig(), latent_shape=LATENT, logvar_floor=-7.0), AUXILIARY, None,
        ),
        "flow": (FlowStage(FlowStageConfig(prior_widening=0), parent), VELOCITY, AUXILIARY),
        "latent_sampler": (LatentSamplerStage(LatentSamplerStageConfig(), parent), SAMPLER, AUXILIARY),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["auxiliary", "flow", "latent_sampler"])
def test_the_flops_of_an_image_are_those_torch_counts_in_a_training_step(name):
    stage, spec, parent = stages()[name]
    module, images = build_model(spec, attention_route="dense"), torch.zeros(2, 3, SIZE, SIZE)
    batch = Batch(ids=torch.arange(2), keys=["a", "b"], images=images, labels=None)
    with counted() as counter:
        stage.loss(module, batch, SampleNoise(0)).loss.backward()
    # the input of the first maps needs no gradient, which is some percent of models as shallow as these
    assert training_flops(STAGES[name], spec, parent, SIZE) == pytest.approx(
        counter.get_total_flops() / 2, rel=0.05
    )


def test_the_parent_of_a_sampler_encodes_and_that_of_a_flow_also_decodes():
    parent = build_model(AUXILIARY, attention_route="dense").requires_grad_(False)
    image = torch.zeros(1, 3, SIZE, SIZE)
    with counted() as encoding:
        z = parent.encode(image).mean
    with counted() as decoding:
        parent.decode(z)
    both = encoding.get_total_flops() + decoding.get_total_flops()
    # the decoder's first map, counted with the latent
    opening = 2 * LATENT[1] * LATENT[2] * LATENT[0] * LEVEL.width
    assert parent_flops(STAGES["flow"], AUXILIARY, SIZE) == both
    assert parent_flops(STAGES["latent_sampler"], AUXILIARY, SIZE) == encoding.get_total_flops() + opening
    assert parent_flops(STAGES["auxiliary"], None, SIZE) == 0


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H200", "bfloat16", 989),
        ("NVIDIA GeForce RTX 3090", "bfloat16", 71),
        ("NVIDIA GeForce RTX 3090 Ti", "bfloat16", 80),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA RTX A6000", "bfloat16", 155),
        ("NVIDIA RTX 6000 Ada Generation", "bfloat16", 364),
        ("NVIDIA GeForce RTX 2080 Ti", "bfloat16", None),
        ("NVIDIA A10G", "bfloat16", None),  # another chip than the A10
        ("cpu", "float32", None),
    ],
)
def test_a_device_is_known_by_its_name(name, precision, peak):
    assert peak_tflops(name, precision) == peak


def test_utilisation_is_the_share_of_all_devices_peaks():
    # 4 devices do 1000 images of 0.3 TFLOP in a second: 75 TFLOP/s each, a quarter of 300
    assert Throughput(0.3e12, 300.0).at(1000.0, devices=4) == pytest.approx({"tflops": 75.0, "mfu": 0.25})


def test_utilisation_is_omitted_if_the_peak_is_unknown():
    assert Throughput(0.3e12).at(1000.0, devices=4) == pytest.approx({"tflops": 75.0})
