"""Quality against cost: the same images with few and with many solver steps.

Every row keeps the seed, so image i starts from the same noise in each; cost is counted in evaluations of the
flow model (NFE) and in milliseconds per image of the whole chain, latent sampler and decoders included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lediflow.evaluation.features import extract
from lediflow.evaluation.features.protocol import FeatureExtractor
from lediflow.evaluation.metrics import evaluate_features
from lediflow.evaluation.timing import milliseconds_per_image
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

Images = Float[Tensor, "batch channels height width"]
TIMED_IMAGES = 16  # per repeat: enough to fill two CPU cores, few enough to cost seconds


def measure_steps(
    pipeline: LeDiFlowPipeline,
    config: SamplingConfig,
    *,
    count: int,
    batch_size: int,
    extractor: FeatureExtractor,
    reference: Float[Tensor, "n dim"],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """One row of the table: `count` images with the settings of `config`, compared with the reference."""
    features = extract(extractor, _batches(pipeline, config, count, batch_size, progress))
    timing = milliseconds_per_image(
        lambda: pipeline(TIMED_IMAGES, config), images=TIMED_IMAGES, repeats=3, device=pipeline.device
    )
    return {
        "solver": config.solver,
        "steps": config.steps,
        "nfe": pipeline(1, config).nfe,
        "ms_per_image": timing.median_ms,
        **evaluate_features(reference, features, extractor.name),
    }


def step_configs(config: SamplingConfig, step_counts: list[int]) -> list[SamplingConfig]:
    return [dataclasses.replace(config, steps=steps) for steps in step_counts]


def _batches(
    pipeline: LeDiFlowPipeline, config: SamplingConfig, count: int, size: int, progress: Callable[[int], None]
) -> Iterator[Images]:
    for first in range(0, count, size):
        numbers = range(first, min(first + size, count))
        yield pipeline(numbers, config).images
        progress(len(numbers))
