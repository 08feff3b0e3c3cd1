"""Feature extractors: images in, one vector per image out. Metrics compare the vectors."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.errors import UserError
from lediflow.evaluation.features.clip import NAME as CLIP
from lediflow.evaluation.features.clip import ClipFeatures
from lediflow.evaluation.features.efficientnet import VARIANTS, EfficientNetFeatures
from lediflow.evaluation.features.protocol import FeatureExtractor

INCEPTION = "inception"

__all__ = [
    "CLIP",
    "INCEPTION",
    "FeatureExtractor",
    "FeaturesConfig",
    "build_features",
    "display_name",
    "extract",
    "unit",
]


@dataclass(kw_only=True)
class FeaturesConfig:
    """Whose eyes the metric looks through. Numbers of different extractors cannot be compared."""

    name: str = "efficientnet-lite0"  # or "efficientnet-lite2"; "clip-vit-l14-336" makes the metric CMMD
    path: str | None = None  # weights file: needed for CLIP, the others bring theirs along
    device: str = "cpu"  # where the extractor runs; the distances are always computed on the CPU


def build_features(config: FeaturesConfig) -> FeatureExtractor:
    """The extractor that the configuration names."""
    if config.name == CLIP:
        return ClipFeatures(config.path, device=config.device)
    if config.name in VARIANTS:
        return EfficientNetFeatures(config.name, config.path, device=config.device)
    raise UserError(f"no features {config.name!r}; choose one of {', '.join([*VARIANTS, CLIP])}")


def display_name(name: str) -> str:
    """The extractor's name as it stands in tables."""
    return "CLIP ViT-L/14@336" if name == CLIP else name.replace("efficientnet-lite", "EfficientNet-Lite")


def unit(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Each vector at length 1."""
    return torch.nn.functional.normalize(features, dim=1)


def extract(
    extractor: FeatureExtractor, batches: Iterable[Float[Tensor, "batch channels height width"]]
) -> Float[Tensor, "n dim"]:
    """Features of all batches, on the CPU."""
    features = [extractor(images).cpu() for images in batches]
    if not features:
        raise UserError(
            "no images to extract features from; check the folder or the number of samples asked for"
        )
    return torch.cat(features)
