"""Small chains of models with random weights, and how far their images are from each other."""

from dataclasses import replace

import torch
from torch import nn

from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
    build_model,
)
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SIZE = 8
GLOBAL = LevelSpec(depth=1, width=16, head_dim=8)
LOCAL = LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3)  # its mask is a constant of compiled code
MAPPING = MappingSpec(depth=1, width=16)
SPECS = (
    VelocitySpec(
        image_channels=3, patch_size=2, levels=[LOCAL], mapping=MAPPING, latent_shape=[2, 4, 4], num_classes=3
    ),
    AuxiliarySpec(image_channels=3, patch_size=2, levels=[GLOBAL], latent_channels=2),
    LatentSamplerSpec(latent_channels=2, levels=[GLOBAL], mapping=MAPPING),
)
NUMBERS = [0, 5, 7]
CONFIG = SamplingConfig(seed=3, solver="heun3", steps=2, latent_steps=2, labels=[0, 2])
TWO_LAYERS = LevelSpec(depth=2, width=16, head_dim=8)
MAP = LatentSamplerSpec(latent_channels=2, levels=[TWO_LAYERS], mapping=MAPPING, is_flow_map=True)
JUMPS = replace(CONFIG, latent_solver="jump")


def drawn(spec, seed):
    torch.manual_seed(seed)
    model = build_model(spec)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return model


def chain(seed=0, specs=SPECS):
    models = [drawn(spec, seed + place) for place, spec in enumerate(specs)]
    return LeDiFlowPipeline(*models, image_size=SIZE, prior_widening=0.1)


def baseline(seed=0):
    """Its flow model alone, from Gaussian noise."""
    return LeDiFlowPipeline(drawn(replace(SPECS[0], latent_shape=[]), seed), None, None, image_size=SIZE)


def jumping_chain(seed=0):
    return chain(seed, (*SPECS[:2], MAP))


def take_weights(pipeline, other):
    """Give a pipeline the weights of another, in place."""
    for name, module in pipeline.modules().items():
        module.load_state_dict(other.modules()[name].state_dict())


def levels_apart(found, expected):
    """Largest difference, in levels of a byte."""
    return 127.5 * float((found.images - expected.images).abs().max())
