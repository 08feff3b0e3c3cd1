"""Images whose latents come from real ones: generation without the latent sampler.

Image i starts from the prior of z ~ q(z | y), y being the real image number i modulo their number. Its noise in the
prior is that of image i of any other source (`GeneratedImages`), so that the noise cancels in differences.
Where there are fewer real images than i, an image gives several draws of z, each with noise of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.evaluation.images import ShardImages
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import Posterior
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.pipeline import Generated

Numbers = Int64[np.ndarray, " images"]


class RealLatents:
    """Draws of the encoder's posterior, indexed by the number of the image to generate."""

    def __init__(self, pipeline: LeDiFlowPipeline, signals: ShardImages, seed: int) -> None:
        self.pipeline, self.signals, self.noise = pipeline, signals, SampleNoise(seed)

    def sources(self, count: int) -> Numbers:
        """Which real sample each of the first `count` images comes from."""
        return self.signals.samples[np.arange(count) % len(self.signals)]

    @torch.no_grad()
    def posterior(self, y: Float[Tensor, "batch channels height width"]) -> Posterior:
        assert self.pipeline.auxiliary is not None
        return self.pipeline.auxiliary.encode(y)

    def draw(self, posterior: Posterior, ids: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channels h w"]:
        noise = self.noise.normal(ids, "posterior", tuple(posterior.mean.shape[1:]))
        return sample(posterior.mean, posterior.logvar, noise)

    def __call__(self, ids: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channels h w"]:
        """z of the images with these numbers."""
        places = [int(number) % len(self.signals) for number in ids.tolist()]
        y = self.signals.numbered(places)
        return self.draw(self.posterior(y), ids)


class ImagesFromReal:
    """Images generated from `RealLatents`; `models` identifies the flow and the auxiliary model."""

    def __init__(
        self, latents: RealLatents, config: SamplingConfig, count: int, models: dict[str, Any]
    ) -> None:
        self.latents, self.config, self.count = latents, config, count
        names = [field.name for field in dataclasses.fields(SamplingConfig)]
        used = {name: getattr(config, name) for name in names if not name.startswith("latent_")}
        sources = hashlib.sha256(latents.sources(count).tobytes()).hexdigest()
        self.record = {
            "models": models,
            "sampling": used,
            "z": latents.signals.record | {"sources": sources},
        }

    def __len__(self) -> int:
        return self.count

    def __call__(self, numbers: range) -> Float[Tensor, "batch channels height width"]:
        return self.generated(numbers).images

    @torch.no_grad()
    def generated(self, numbers: range) -> Generated:
        pipeline = self.latents.pipeline
        ids = torch.arange(numbers.start, numbers.stop, device=pipeline.device)
        start = pipeline.start_from(ids, self.latents(ids), self.config)
        solution = pipeline.integrate(start, self.config)
        return Generated(pipeline.decode(solution.x).clamp(-1, 1), start, solution.nfe)
