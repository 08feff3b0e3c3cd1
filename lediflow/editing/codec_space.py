"""Photographs as what the models of a pipeline are trained on: pixels, or the latents of a codec.

Masks follow: a latent is repainted if any pixel that it stands for is (the mask is max-pooled). A codec's encoder looks
beyond the pixels of a latent, so a photograph whose hidden part must not be seen is encoded with that part filled.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from lediflow.codecs import Codec
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline

COLOURS = 3  # channels of the photographs of a codec other than pixels

Images = Float[Tensor, "batch channels height width"]
Amount = Float[Tensor, "1 1 height width"]


def codec_of(pipeline: LeDiFlowPipeline) -> Codec:
    """The codec; UserError if the pipeline has only its decoder."""
    if pipeline.codec is None:
        raise UserError(
            "these models were trained on latents of a codec, and the pipeline has only its decoder; load it with "
            "codec=, to encode photographs"
        )
    return pipeline.codec


def picture_shape(pipeline: LeDiFlowPipeline) -> tuple[int, int]:
    """Side and channels of the photographs."""
    codec = codec_of(pipeline)
    channels = pipeline.velocity.spec.image_channels if codec.is_exact else COLOURS
    return pipeline.image_size * codec.reduction, channels


@torch.no_grad()
def data_of(pipeline: LeDiFlowPipeline, photographs: Images) -> Images:
    """Photographs in [-1, 1] as the models know them: themselves, or the means of their latents."""
    return codec_of(pipeline).encode(photographs.to(pipeline.device)).mean


def pooled(pipeline: LeDiFlowPipeline, amount: Amount) -> Amount:
    """M of eq. 7 for the models' data: the largest among the pixels of each latent. UserError if no latent is kept."""
    reduction = codec_of(pipeline).reduction
    if reduction == 1:
        return amount
    largest = max_pool2d(amount, reduction)
    if (largest > 0).all():
        raise UserError(
            f"the mask leaves no latent as it is: each stands for {reduction} x {reduction} pixels, and is repainted "
            "if any of them is; paint less, or make whole images: lediflow.sample, lediflow.edit vary"
        )
    return largest


def filled(known: Images, fill: Images, amount: Amount) -> Images:
    """The image with its hidden part replaced; `where`, so that not even a rounding of hidden pixels is passed on."""
    return torch.where(amount == 1, fill, torch.lerp(known, fill, amount))


def surroundings(known: Images, amount: Amount) -> Images:
    """A smooth continuation of the kept pixels into the hidden part, for an encoder that must not see it.

    Means over squares of 2, 4, 8 ... pixels, of the smallest that holds a kept pixel, with bilinear transitions.
    """
    kept = 1 - amount
    return averages(known * kept, kept)


def averages(total: Images, weight: Amount) -> Images:
    """total / weight where there is weight, from a grid half as fine elsewhere."""
    if weight.shape[-1] == 1 or bool((weight > 0).all()):
        return total / weight
    coarse = averages(*(avg_pool2d(values, 2, ceil_mode=True) for values in (total, weight)))
    smooth = interpolate(coarse, size=total.shape[-2:], mode="bilinear")
    return torch.where(weight > 0, total / weight.clamp(min=1e-12), smooth)
