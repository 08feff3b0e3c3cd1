"""What the exports of models record about each other, for pipelines that are built from models.

A flow starts from the prior of its training, of the width in its export/config.json, given the latents of the auxiliary
model that it was trained on. `load_model` keeps that record with the model, so that a pipeline built by hand starts
as the flow was trained to, and models that do not belong together are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lediflow.codecs import Codec, PixelCodec
from lediflow.errors import UserError
from lediflow.flow.widening import SCALE, WIDTH, Width, recorded_width
from lediflow.models.export import record_of
from lediflow.text import shown_hash

log = logging.getLogger(__name__)

WITHOUT_RECORD = (
    "the flow's weights come without a record of their training, so its start is taken as N(mu, sigma^2); if it was "
    "trained with another width, give prior_widening= and prior_scale=, which are in its export/config.json, or load "
    "it with lediflow.models.load_model, which reads them"
)


def width_of_start(
    velocity: nn.Module, auxiliary: nn.Module | None, widening: float | None, scale: float | None
) -> Width:
    """The width of a flow's start: the recorded one, or the given one where there is no record.

    ValueError for another one than recorded, and for any of a flow without a prior. Where neither is known, a warning.
    """
    given = Width(1.0 if scale is None else scale, 0.0 if widening is None else widening)
    if auxiliary is None:
        if given != Width():
            raise ValueError(
                f"prior_widening {widening}, prior_scale {scale}: the Gaussian baseline has no prior to widen"
            )
        return given
    record = record_of(velocity)
    if "stage" not in record and WIDTH not in record:
        if widening is None and scale is None:
            log.warning(WITHOUT_RECORD)
        return given
    recorded = recorded_width(record)
    for name, value, known in ((WIDTH, widening, recorded.added), (SCALE, scale, recorded.scale)):
        if value is not None and value != known:
            raise ValueError(
                f"{name}={value}: the flow was trained with {name}={known}, and starts as it was trained; leave "
                f"{name} out"
            )
    return recorded


def check_models(
    velocity: nn.Module, auxiliary: nn.Module | None, latent_sampler: nn.Module | None, image_size: int
) -> None:
    """ValueError for models that were not trained together, or for images of another size, as far as it is recorded."""
    if (auxiliary is None) != (latent_sampler is None):
        raise ValueError(
            "a learned prior needs both the auxiliary model and the latent sampler, the Gaussian baseline neither"
        )
    record = record_of(velocity)
    if auxiliary is None and record.get("prior") == "learned":
        raise ValueError(
            "the flow was trained from a learned prior; give the auxiliary model that it was trained on, and a latent "
            "sampler"
        )
    if auxiliary is not None and record.get("prior") == "gaussian":
        raise ValueError(
            "the flow is a Gaussian baseline, which was trained without a prior; give it alone, or a flow with a "
            "learned prior"
        )
    if (trained := record.get("image_size", image_size)) != image_size:
        raise ValueError(
            f"image_size={image_size}: the flow was trained on images of {trained} x {trained}; give "
            f"image_size={trained}"
        )
    there = record_of(auxiliary).get("weights_sha256")
    for name, model in (("flow", velocity), ("latent sampler", latent_sampler)):
        parent = (record_of(model).get("parent") or {}).get("sha256")
        if parent and there and parent != there:
            raise ValueError(
                f"the {name} was trained on the auxiliary model {shown_hash(parent)}, given is {shown_hash(there)}; "
                "give the models of one chain"
            )


def check_has_codec(velocity: nn.Module, is_given: bool) -> None:
    """ValueError for a flow of latents without its codec: its output would be taken for pixels."""
    name = (record_of(velocity).get("codec") or {}).get("name", PixelCodec.name)
    if not is_given and name != PixelCodec.name:
        raise ValueError(
            f"the flow was trained on latents of codec={name}; give the codec that encoded them (codec=...), or its "
            "decoder (decode=...)"
        )


def check_codec(path: Path, recorded: dict[str, Any] | None, codec: Codec | None) -> None:
    """UserError unless the codec is that of the saved models; `recorded` None: they had a decoder alone."""
    if codec is None if recorded is None else (codec or PixelCodec()).record() != recorded:
        raise UserError(
            f"{path} holds models of latents of {recorded or 'a codec'}, given is {codec and codec.record()}; "
            "give the codec that encoded their training data (codec=...), or its decoder (decode=...)"
        )


def names_of(model: nn.Module | None) -> list[str]:
    """The names of a model's classes, by number, as its export records them; empty if they are not known."""
    record = record_of(model)
    return list(record.get("classes") or (record.get("data") or {}).get("classes") or [])


def kept_record(model: nn.Module) -> dict[str, Any]:
    """What a copy of a model keeps of its record: the names of its classes, if they are known."""
    return {"classes": names} if (names := names_of(model)) else {}


def common_names(flow: Sequence[str], sampler: Sequence[str]) -> list[str]:
    """The names of the classes of a pair; UserError where the two know a number by different names."""
    pairs = enumerate(zip(flow, sampler, strict=False))
    differing = [f"{number} is {one} and {other}" for number, (one, other) in pairs if one != other]
    if differing:
        raise UserError(
            f"flow and latent sampler were trained on classes of different names ({differing[0]}); give models of the "
            "same classes, or leave labels out"
        )
    return list(flow or sampler)
