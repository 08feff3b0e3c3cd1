"""A photograph moved along a direction in z or w, and what else changes on the way.

A direction is fitted on halves of two sets of pictures, and tested on the others (directions, picture_sets). A
strength s moves a photograph's z, or w, by s units along it. The flow then starts from the prior of the new z, with the
photograph's own noise (x_from=image: strength 0 returns the photograph, up to the round trip) or with a draw that all
pictures share (x_from=prior).

What changes is measured on the results after encoding them again, against the result of strength 0, which has the
errors of the models but no edit:

moved         distance along the direction, in units: equal to the strength if the edit arrives
drift         distance across the direction, in units of `spread`, the distance of a picture from the mean of its set:
              0 if nothing else changes, 1 if as much else changes as pictures of one set differ
pixel_change  root mean square over the pixels, in levels of 255; contains both
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.codecs import bytes_to_signal
from lediflow.editing.codec_space import data_of
from lediflow.editing.directions import Direction, doubts, fitted, scores, with_test
from lediflow.editing.inversion import Latents, encoded, noise_of_latents, noise_to_latents
from lediflow.editing.picture_sets import PictureSet, Pixels, near_duplicates, refuse_overlap
from lediflow.editing.strength import Own, mixed_start, own_of
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig

HELD_OUT = 8  # pictures of each set whose edits are measured

Images = Float[Tensor, "batch channels height width"]


class Found(NamedTuple):
    """A direction, the records of the sets that made it, and pictures that it was not fitted on (None if stored)."""

    direction: Direction
    sets: dict[str, Any]
    held_out: Pixels | None = None
    passed_over: Sequence[dict[str, str]] = ()
    warnings: Sequence[str] = ()


class Along(NamedTuple):
    """Images in [-1, 1] by picture and strength, and the measures of each."""

    images: Float[Tensor, "pictures strengths channels height width"]
    measures: dict[str, Float[Tensor, "pictures strengths"]]  # moved, drift, pixel_change
    own: Own  # of the first batch: z of the pictures, w and x where they were needed

    def rows(self, strengths: Sequence[float]) -> list[dict[str, float]]:
        """The mean over the pictures of each measure, for each strength."""
        means = {name: values.mean(dim=0).tolist() for name, values in self.measures.items()}
        return [
            {"strength": strength, **{name: values[place] for name, values in means.items()}}
            for place, strength in enumerate(strengths)
        ]


@torch.no_grad()
def found_between(
    pipeline: LeDiFlowPipeline,
    having: PictureSet,
    lacking: PictureSet,
    config: SamplingConfig,
    *,
    space: str,
    estimator: str,
    batch_size: int,
) -> Found:
    """The direction from pictures without an attribute to pictures with it, tested on the halves it has not seen.

    UserError for pictures that are in both sets, and for sets that do not differ. Warns of near-identical pictures in
    both halves, and of a test that does not separate the sets.
    """
    refuse_overlap(having, lacking)
    halves = [halves_of(pipeline, one, config, space, batch_size) for one in (having, lacking)]
    direction = fitted(halves[0][0], halves[1][0], space=space, estimator=estimator)
    direction = with_test(direction, halves[0][1], halves[1][1])
    near = near_duplicates(having, lacking)
    warnings = doubts(direction)
    if near:
        warnings.append(
            f"{near} of the pictures to test on are near-identical to pictures that the direction was fitted on, so "
            "the AUC is too high for new pictures; leave repeated photographs out"
        )
    sets = {"with": having.record(), "without": lacking.record(), "near_identical": near}
    passed_over = [{"set": one.option, **file} for one in (having, lacking) for file in one.unusable]
    held_out = torch.cat([one.pixels[one.fitted : one.fitted + HELD_OUT] for one in (having, lacking)])
    return Found(direction, sets, held_out, passed_over, warnings)


def halves_of(
    pipeline: LeDiFlowPipeline, pictures: PictureSet, config: SamplingConfig, space: str, batch_size: int
) -> tuple[Latents, Latents]:
    """Features of the pictures to fit on and of those to test on."""
    parts = []
    for pixels in pictures.pixels.split(batch_size):
        z = encoded(pipeline, data_of(pipeline, bytes_to_signal(pixels)))
        parts.append(features_of(pipeline, z, space, config))
    features = torch.cat(parts)
    return features[: pictures.fitted], features[pictures.fitted :]


def features_of(pipeline: LeDiFlowPipeline, z: Latents, space: str, config: SamplingConfig) -> Latents:
    """The latents themselves, or the noise that the latent sampler makes them from."""
    return z if space == "z" else noise_of_latents(pipeline, z, config.latent_method(is_flow_map=False))


@torch.no_grad()
def moved_along(
    pipeline: LeDiFlowPipeline,
    pixels: Pixels,
    direction: Direction,
    strengths: Sequence[float],
    config: SamplingConfig,
    *,
    x_from: str,
    batch_size: int,
) -> Along:
    """Every picture at every strength, in batches of about `batch_size` images."""
    each = max(1, batch_size // (len(strengths) + 1))
    parts = [
        moved_together(pipeline, part, direction, strengths, config, x_from) for part in pixels.split(each)
    ]
    measures = {name: torch.cat([part.measures[name] for part in parts]) for name in parts[0].measures}
    return Along(torch.cat([part.images for part in parts]), measures, parts[0].own)


def moved_together(
    pipeline: LeDiFlowPipeline,
    pixels: Pixels,
    direction: Direction,
    strengths: Sequence[float],
    config: SamplingConfig,
    x_from: str,
) -> Along:
    """`moved_along` of one batch; strength 0, which the measures start from, is always made, too."""
    y = data_of(pipeline, bytes_to_signal(pixels))
    method = config.latent_method(is_flow_map=False)
    parts = ("x" if x_from == "image" else "") + ("w" if direction.space == "w" else "")
    own = own_of(pipeline, y, config, parts)
    origin = own.inverted["w"].noise if direction.space == "w" else own.z
    steps = torch.tensor([0.0, *strengths], device=origin.device) * direction.unit
    places = origin[:, None] + steps[:, None, None, None] * direction.vector.to(origin.device)
    z = places.flatten(0, 1)
    if direction.space == "w":
        z = noise_to_latents(pipeline, z, method)
    if own.x_noise is not None:
        own = own._replace(x_noise=own.x_noise.repeat_interleave(len(steps), dim=0))
    made = images_from(pipeline, z, own, config)
    measures = measured(pipeline, made, direction, config, len(pixels))
    return Along(made.unflatten(0, (len(pixels), -1))[:, 1:], measures, own)


def images_from(pipeline: LeDiFlowPipeline, z: Latents, own: Own, config: SamplingConfig) -> Images:
    """Images in [-1, 1] of latents, from the noise of x in `own`; without that, all from the noise of image 0."""
    start = pipeline.start_from(torch.zeros(len(z), dtype=torch.int64, device=z.device), z, config)
    if own.x_noise is not None:
        start = mixed_start(start, own, 0.0)
    return pipeline.decode(pipeline.integrate(start, config).x).clamp(-1, 1)


def measured(
    pipeline: LeDiFlowPipeline, made: Images, direction: Direction, config: SamplingConfig, pictures: int
) -> dict[str, Float[Tensor, "pictures strengths"]]:
    """The measures of images, ordered by picture and strength, against the first of each picture, of strength 0."""
    features = features_of(pipeline, encoded(pipeline, data_of(pipeline, made)), direction.space, config)
    by_strength = features.unflatten(0, (pictures, -1)).flatten(2).double()
    change = by_strength[:, 1:] - by_strength[:, :1]
    along = scores(direction, change.flatten(0, 1)).unflatten(0, change.shape[:2])
    across = (change.square().sum(dim=-1) - along.square()).clamp(min=0).sqrt()
    levels = made.unflatten(0, (pictures, -1)).flatten(2) * 127.5
    pixel_change = (levels[:, 1:] - levels[:, :1]).square().mean(dim=-1).sqrt()
    found = {
        "moved": along / direction.unit,
        "drift": across / direction.spread,
        "pixel_change": pixel_change,
    }
    return {name: values.float().cpu() for name, values in found.items()}


def described(direction: Direction, rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines about a direction and its edits, for the terminal: of held-out pictures if there are any."""
    auc, low, high = (direction.test[name] for name in ("auc", "auc_low", "auc_high"))
    shown, pictures = (
        ("held_out", "held-out pictures") if "held_out" in rows else ("strengths", "this picture")
    )
    return [
        f"  direction in {direction.space} by {direction.estimator}: AUC {auc:.3f} on pictures that it was not fitted "
        f"on (95 % interval {low:.3f} to {high:.3f}); the sets are {direction.separation:.2g} units apart",
        *(
            f"  strength {row['strength']:g}: moved {row['moved']:.2f}, drift {row['drift']:.2f}, pixels "
            f"{row['pixel_change']:.1f} levels ({pictures})"
            for row in rows[shown]
        ),
    ]
