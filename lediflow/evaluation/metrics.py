"""The quality of a set of images, from features of it and of real photographs. Lower is better everywhere.

A metric carries the name of its features: "MMD (EfficientNet-Lite0)". Only CLIP ViT-L/14@336 makes it "CMMD".
MMD uses unit-norm features, sigma 10 and a factor 1000, as CMMD does; the Fréchet distance uses raw features.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.features import CLIP, display_name, unit
from lediflow.evaluation.frechet import feature_statistics, frechet_distance


def metric_name(metric: str, features: str) -> str:
    """What the metric ("mmd" or "frechet") is called on these features."""
    if metric == "mmd":
        return "CMMD" if features == CLIP else f"MMD ({display_name(features)})"
    if metric == "frechet":
        return f"Fréchet distance ({display_name(features)})"
    raise ValueError(f"no metric {metric!r}; there are 'mmd' and 'frechet'")


def evaluate_features(
    reference: Float[Tensor, "n dim"], samples: Float[Tensor, "m dim"], features: str
) -> dict[str, Any]:
    """Every distance between the photographs and the samples, ready for a results file."""
    unit_reference, unit_samples = unit(reference), unit(samples)
    frechet = frechet_distance(*feature_statistics(reference), *feature_statistics(samples))
    return {
        "features": features,
        "mmd_name": metric_name("mmd", features),
        "mmd": cmmd(unit_reference, unit_samples),
        "mmd_unbiased": cmmd(unit_reference, unit_samples, unbiased=True),
        "frechet_name": metric_name("frechet", features),
        "frechet": frechet,
        "reference_images": len(reference),
        "sample_images": len(samples),
    }
