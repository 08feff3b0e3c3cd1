"""Feature extractors: images in, one vector per image out. Metrics compare the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.errors import UserError
from lediflow.evaluation.features.clip import NAME as CLIP
from lediflow.evaluation.features.clip import PREFIX, ClipFeatures
from lediflow.evaluation.features.efficientnet import VARIANTS, EfficientNetFeatures
from lediflow.evaluation.features.inception import NAME as INCEPTION
from lediflow.evaluation.features.inception import InceptionFeatures
from lediflow.evaluation.features.torchscript import NAME as TORCHSCRIPT
from lediflow.evaluation.features.torchscript import TorchScriptFeatures
from lediflow.ranges import bounded


class FeatureExtractor(Protocol):
    """Maps images to vectors that are close for images that people find similar."""

    name: str
    dim: int
    record: dict[str, Any]  # identifies the features: name, hash of the weights, preprocessing

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Raw float32 features of grey or RGB images in [-1, 1]; `unit` normalises them."""


__all__ = [
    "CLIP",
    "INCEPTION",
    "FeatureExtractor",
    "FeaturesConfig",
    "build_features",
    "display_name",
    "unit",
]

CHOICES = (*VARIANTS, CLIP, f"{PREFIX}ARCHITECTURE", INCEPTION, TORCHSCRIPT)


@dataclass(kw_only=True)
class FeaturesConfig:
    """The feature extractor of the metrics. Numbers of different extractors cannot be compared."""

    # efficientnet-lite0, efficientnet-lite2, clip-vit-l14-336 (CMMD), inception (FID), ...: see docs/evaluation.md
    name: str = "efficientnet-lite0"
    path: str | None = None  # weights file; EfficientNets come with theirs, the others need one
    size: int = bounded(224, at_least=1)  # torchscript: side of the module's input in pixels
    # torchscript: means of the channels, in 0..1
    mean: list[float] = bounded(default_factory=lambda: [0.485, 0.456, 0.406], entries=3)
    # torchscript: standard deviations of the channels, in 0..1
    std: list[float] = bounded(default_factory=lambda: [0.229, 0.224, 0.225], above=0, entries=3)
    device: str = "cpu"  # where the extractor runs


def build_features(config: FeaturesConfig) -> FeatureExtractor:
    """The extractor that the configuration names."""
    name, path, device = config.name, config.path, config.device
    if name == CLIP:
        return ClipFeatures(path, device=device)
    if name.startswith(PREFIX):
        return ClipFeatures(path, name=name, architecture=name.removeprefix(PREFIX), device=device)
    if name in VARIANTS:
        return EfficientNetFeatures(name, path, device=device)
    if name == INCEPTION:
        return InceptionFeatures(path, device=device)
    if name == TORCHSCRIPT:
        return TorchScriptFeatures(path, size=config.size, mean=config.mean, std=config.std, device=device)
    raise UserError(f"no features {name!r}; choose one of {', '.join(CHOICES)}")


def display_name(name: str) -> str:
    """The extractor's name in tables."""
    if name == CLIP:
        return "CLIP ViT-L/14@336"
    if name == INCEPTION:
        return "Inception"
    return name.replace("efficientnet-lite", "EfficientNet-Lite").removeprefix(PREFIX)


def unit(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Vectors scaled to length 1."""
    return torch.nn.functional.normalize(features, dim=1)
