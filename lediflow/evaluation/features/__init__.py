"""Feature extractors: images in, one vector per image out. Metrics compare the vectors."""

from __future__ import annotations

from collections.abc import Callable
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
    "EXTRACTORS",
    "INCEPTION",
    "ExtractorKind",
    "FeatureExtractor",
    "FeaturesConfig",
    "build_features",
    "display_name",
    "unit",
]


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


@dataclass(frozen=True)
class ExtractorKind:
    """How a feature extractor is built, and what tables call it."""

    build: Callable[[FeaturesConfig], FeatureExtractor]
    # None: its name
    title: str | None = None


ANY_CLIP = f"{PREFIX}ARCHITECTURE"  # stands for the names with this prefix
# by name, in the order of messages; a new extractor is one entry
EXTRACTORS: dict[str, ExtractorKind] = {
    **{
        name: ExtractorKind(
            lambda config: EfficientNetFeatures(config.name, config.path, device=config.device),
            title=name.replace("efficientnet-lite", "EfficientNet-Lite"),
        )
        for name in VARIANTS
    },
    CLIP: ExtractorKind(
        lambda config: ClipFeatures(config.path, device=config.device), title="CLIP ViT-L/14@336"
    ),
    ANY_CLIP: ExtractorKind(
        lambda config: ClipFeatures(
            config.path,
            name=config.name,
            architecture=config.name.removeprefix(PREFIX),
            device=config.device,
        )
    ),
    INCEPTION: ExtractorKind(
        lambda config: InceptionFeatures(config.path, device=config.device), title="Inception"
    ),
    TORCHSCRIPT: ExtractorKind(
        lambda config: TorchScriptFeatures(
            config.path, size=config.size, mean=config.mean, std=config.std, device=config.device
        )
    ),
}


def build_features(config: FeaturesConfig) -> FeatureExtractor:
    """The extractor that the configuration names; UserError for a name that is not in the table."""
    kind = EXTRACTORS.get(ANY_CLIP if config.name.startswith(PREFIX) else config.name)
    if kind is None:
        raise UserError(f"no features {config.name!r}; choose one of {', '.join(EXTRACTORS)}")
    return kind.build(config)


def display_name(name: str) -> str:
    """The extractor's name in tables."""
    title = EXTRACTORS[name].title if name in EXTRACTORS else None
    return title or name.removeprefix(PREFIX)


def unit(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Vectors scaled to length 1."""
    return torch.nn.functional.normalize(features, dim=1)
