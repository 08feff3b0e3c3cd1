"""The pictures of a milestone, as labelled rows of bytes.

samples         generated from fixed noise: from w where a latent sampler is at hand, from latents z ~ N(0, I) while the
                auxiliary model trains, else from the latents of the fixed images; the baseline starts from noise alone
heldout         fixed images, the mean of their prior, its sigma, a draw, and what the flow makes of the draw
interpolation   between two of the fixed images' latents; between two draws of w, or of noise, where those are generated

A picture is left out where its models are not at hand, and where a run does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import Latent
from lediflow.models.specs import latent_shape
from lediflow.nn.shapes import Image
from lediflow.sampling.grids import SIGMA_LIMITS, Bytes
from lediflow.stages import Place
from lediflow.training.pictures.chain import (
    COLUMNS,
    Display,
    FixedImages,
    Ids,
    PictureChain,
    between,
    same,
    sigma_map,
    sigma_of,
)

GROUPS = 2  # rows of generated samples
NOISES = (0, 1, 2)  # seeds of the rows that start from the latents of the fixed images
SEED = 0  # of everything else: sample i has the noise of image i of `lediflow.sample seed=0`


class Drawing(NamedTuple):
    """A picture: bytes of each row with the row's label, and a caption."""

    rows: list[tuple[str, Bytes]]
    caption: str


@dataclass(frozen=True)
class Scene:
    """What the pictures of one milestone are made of."""

    chain: PictureChain
    # the model that the run trains
    place: Place
    images: FixedImages
    display: Display
    # channels, height and width of what the models see
    shape: tuple[int, int, int]
    device: torch.device
    images_seen: int

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        assert self.chain.auxiliary is not None
        return latent_shape(self.chain.auxiliary.spec, *self.shape[1:])

    def noise(self, ids: Ids, seed: int = SEED) -> Image:
        """What a draw of the prior is made from, for each number."""
        return SampleNoise(seed).normal(ids, "prior", self.shape)

    def latent_noise(self, ids: Ids) -> Latent:
        """w for each number."""
        return SampleNoise(SEED).normal(ids, "latent noise", self.latent_shape)

    def caption(self, text: str) -> str:
        return f"Averaged weights at {self.images_seen:,} images. {text}{self.display.note}"


def drawings(scene: Scene) -> dict[str, Callable[[], Drawing]]:
    """The pictures by name, each a function that computes it."""
    found: dict[str, Callable[[], Drawing]] = {"samples": partial(samples, scene)}
    if scene.chain.auxiliary is not None and scene.place != "latent_sampler":
        found["heldout"] = partial(heldout, scene)
    return found | {"interpolation": partial(interpolation, scene)}


# --- samples


def samples(scene: Scene) -> Drawing:
    """Generated images, or the means of their priors where there is no flow."""
    rows: list[tuple[str, Bytes]] = []
    chain = scene.chain
    if scene.place == "flow" and chain.auxiliary is not None and chain.latent_sampler is None:
        batch = scene.images.batch()
        z = latents_of(chain, batch)
        rows = [*results(scene, "image's z", z, batch.ids, batch.labels, NOISES)]
    else:
        for start in range(0, GROUPS * COLUMNS, COLUMNS):
            ids = torch.arange(start, start + COLUMNS, device=scene.device)
            name = f"{start_name(scene)} {start} to {start + COLUMNS - 1}"
            labels = chain.labels_of(ids)
            rows += results(scene, name, generated_latents(scene, ids, labels), ids, labels)
    return Drawing(rows, scene.caption(about_samples(scene)))


def generated_latents(scene: Scene, ids: Ids, labels: Ids | None) -> Latent | None:
    """z from w by the latent sampler; w itself without one; None without latents."""
    if scene.chain.auxiliary is None:
        return None
    w = scene.latent_noise(ids)
    return scene.chain.z_of(w, labels) if scene.chain.latent_sampler is not None else w


def start_name(scene: Scene) -> str:
    """What the generated samples start from."""
    if scene.chain.auxiliary is None:
        return "noise"
    return "z" if scene.chain.latent_sampler is None else "w"


def results(
    scene: Scene, name: str, z: Latent | None, ids: Ids, labels: Ids | None, seeds: Sequence[int] = (SEED,)
) -> Iterator[tuple[str, Bytes]]:
    """The mean of the prior of z, and a row for each seed: the flow's images, or draws of the prior without one.

    `name` is that of the start, for the row's labels.
    """
    chain, show = scene.chain, scene.display
    prior = chain.prior(z) if z is not None else None
    if prior is not None:
        yield f"prior mean, {name}", show(prior.mean)
    for seed in seeds:
        x = scene.noise(ids, seed) if prior is None else chain.draw(prior, scene.noise(ids, seed))
        noise = f", noise {seed}" if len(seeds) > 1 else f", {name}"
        if chain.velocity is not None:
            yield f"flow, {chain.method}{noise}", show(chain.flow(x, z, labels))
        elif scene.place != "latent_sampler":
            yield f"a draw{noise}", show(x)


def about_samples(scene: Scene) -> str:
    """Where the samples start, for the caption."""
    chain, numbers = scene.chain, f"0 to {GROUPS * COLUMNS - 1}"
    flow = f"the flow's image of a draw ({chain.method})"
    if chain.auxiliary is None:
        return f"Each image is made by the flow ({chain.method}) from noise of its own, numbers {numbers}."
    if chain.latent_sampler is not None:
        made = f"the mean of its prior, and {flow}" if chain.velocity else "the mean of its prior"
        return (
            f"Each column is a noise w, numbers {numbers}, mapped to z by the latent sampler "
            f"({chain.latent_method}): {made}."
        )
    if chain.velocity is not None:
        return (
            f"Each column is the latent of one of the {scene.images.name}: the mean of its prior, and {flow}, from "
            f"{len(NOISES)} draws of noise."
        )
    return f"Each column is a latent z of N(0, I), numbers {numbers}: the mean of its prior, and a draw."


# --- fixed images


def latents_of(chain: PictureChain, batch: Batch) -> Latent:
    """The means of the images' posteriors."""
    assert chain.auxiliary is not None
    return chain.auxiliary.encode(batch.images).mean.float()


def heldout(scene: Scene) -> Drawing:
    """The fixed images, their priors, and what the flow makes of a draw."""
    chain, show, batch = scene.chain, scene.display, scene.images.batch()
    z = latents_of(chain, batch)
    prior = chain.prior(z)
    x = chain.draw(prior, scene.noise(batch.ids))
    rows = [
        ("image", show(batch.images)),
        ("prior mean", show(prior.mean)),
        ("prior sigma, bright: large", sigma_map(prior)),
        ("a draw", show(x)),
    ]
    if chain.velocity is not None:
        rows.append((f"flow, {chain.method}", show(chain.flow(x, z, batch.labels))))
    sigma, (low, high) = sigma_of(prior), SIGMA_LIMITS
    text = (
        f"{scene.images.name.capitalize()}. Sigma of the prior{widened(chain)} as colours on a logarithmic scale, from "
        f"{low:.3g} (black) over violet and orange to {high:.3g} (pale yellow); here {float(sigma.min()):.3g} to "
        f"{float(sigma.max()):.3g}."
    )
    return Drawing(rows, scene.caption(text))


def widened(chain: PictureChain) -> str:
    """How the flow's prior is widened, for the caption; empty if it is not."""
    scale, added = chain.width
    if (scale, added) == (1, 0):
        return ""
    return f" that the flow starts from, {scale:g} sigma widened by {added:g},"


# --- interpolation


def interpolation(scene: Scene) -> Drawing:
    """Images between two ends, all from the same noise."""
    chain, show = scene.chain, scene.display
    z, x, labels, text = ends(scene)
    rows = []
    if z is not None:
        prior = chain.prior(z)
        rows.append(("prior mean", show(prior.mean)))
        x = chain.draw(prior, x)
    if chain.velocity is not None:
        rows.append((f"flow, {chain.method}", show(chain.flow(x, z, labels))))
    return Drawing(rows, scene.caption(text))


def ends(scene: Scene) -> tuple[Latent | None, Image, Ids | None, str]:
    """For each frame: z (None without latents), the noise of the draw, a class; and what the ends are."""
    chain, ids = scene.chain, torch.arange(2, device=scene.device)
    first, last = scene.noise(ids)
    labels = chain.labels_of(torch.zeros(COLUMNS, dtype=torch.int64, device=scene.device))
    if chain.auxiliary is None:
        text = "From one noise, number 0, to another, number 1, on a quarter of an ellipse."
        return None, between(first, last, frames=COLUMNS, is_noise=True), labels, text
    noise = same(first, frames=COLUMNS)
    if scene.place == "latent_sampler":
        start, end = scene.latent_noise(ids)
        w = between(start, end, frames=COLUMNS, is_noise=True)
        text = "From one noise w, number 0, to another, number 1, on a quarter of an ellipse, by the latent sampler."
        return chain.z_of(w, labels), noise, labels, text
    batch = scene.images.batch()
    z = latents_of(chain, batch)
    text = f"On the line between the latents of the first and the last of the {scene.images.name}."
    return between(z[0], z[-1], frames=COLUMNS, is_noise=False), noise, own_labels(batch), text


def own_labels(batch: Batch) -> Tensor | None:
    """The class of the first image, for each frame."""
    return None if batch.labels is None else batch.labels[:1].expand(COLUMNS)
