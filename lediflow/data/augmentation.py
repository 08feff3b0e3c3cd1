"""Images flipped, scaled, rotated, stretched and shifted at random, with nine numbers that describe the transformation.

A model that is given the numbers learns the transformed images as a condition; given zeros, it generates untransformed
images. So the transformations do not leak into what is generated. The transformation of the k-th image of a run is a
function of (seed, k), the same on any rank and device. Each kind of transformation has its own draws, so switching one
off does not change the others.

Points are (x, y), x to the right and y downwards, from the image's centre. A point p of the image is mapped to

    F S R(-angle) R(direction) A R(-direction) (p + d)

F flips, S = 2^(0.2 scale), A = diag(2^(0.2 stretch), 2^(-0.2 stretch)), R(a) = [[cos a, -sin a], [sin a, cos a]], and
d = side / 8 (shift_x, shift_y): the image is shifted first and flipped last, in the order of k-diffusion's matrices.
Flips exchange whole pixels and are not part of the resampled map.

Resampling along an affine map avoids aliasing: images are upsampled by two, interpolated, and decimated by two. The
scheme is EDM's, with different filters. Upsampling and decimation use the low-pass halves of the
Cohen-Daubechies-Feuveau 9/7 wavelet (JPEG 2000): they are symmetric and invert each other exactly, unlike EDM's sym6.
So the identity, shifts by whole pixels, flips and quarter turns reproduce the pixels, up to rounding. Decimation
removes the frequencies that a smaller image cannot represent, down to half the size. Beyond the border the image is
continued by reflection about its outermost pixels, without repeating them, at any distance (k-diffusion's `reflect`).
Interpolation may overshoot [-1, 1] at edges; nothing is clipped, as in both references. An image's result does not
depend on the other images of a batch, to the bit.

Sources: Karras et al., arXiv:2206.00364, appendix F.2; numbers, their order and scale, and the order of the
transformations as in k-diffusion's `KarrasAugmentationPipeline`. Filters: Cohen, Daubechies & Feuveau (1992);
coefficients: ISO/IEC 15444-1, annex F.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, stack, where

from lediflow.flow.noise import SampleNoise
from lediflow.ranges import bounded

PerImage = Float[Tensor, " batch"]
LOG2_FACTOR = 0.2  # log2 of the factor for a draw of 1, of scaling and anisotropy
SHIFT = 1 / 8  # shift for a draw of 1, in sides
Images = Float[Tensor, "batch channels side side"]
Matrices = Float[Tensor, "batch 2 2"]
# filters from the centre outwards; the full sums are 2 and 1
SYNTHESIS = (1.115087052456994, 0.5912717631142470, -0.05754352622849957, -0.09127176311424948)
ANALYSIS = (
    0.6029490182363579,
    0.2668641184428723,
    -0.07822326652898785,
    -0.01686411844287495,
    0.02674875741080976,
)
HALO = len(ANALYSIS) - 1  # points of the fine grid that decimation needs beyond the border
SMALLEST_SIDE = 3  # pixels, so that the points that upsampling reflects are inside the image
NUMBERS_AT_ONCE = 2**22  # image values per part: bounds the memory to about 0.2 GB


@dataclass(kw_only=True)
class AugmentConfig:
    """Transformations whose parameters condition the model; their magnitudes are those of EDM and k-diffusion."""

    # probability of each transformation; higher: less memorisation, fewer unchanged images; EDM: 0.12; 0: off
    probability: float = bounded(0.0, at_least=0, at_most=1)
    flip_horizontal: bool = True  # mirror half of all images; not used if data.flip_horizontal is on
    # turn half of the chosen images upside down; not used if data.flip_vertical is on
    flip_vertical: bool = True
    scaling: bool = True  # scale by 2^(0.2 n), n ~ N(0, 1)
    rotation: bool = True  # rotate by any angle
    anisotropy: bool = True  # stretch by 2^(0.2 n) along a random direction, and shrink as much across it
    translation: bool = True  # shift by n/8 of the side along each axis


class Draws(NamedTuple):
    """Parameters of each image's transformations, 0 for none; a_0 to a_7 of the paper's table."""

    mirrored: PerImage  # 1: left and right are swapped
    inverted: PerImage  # 1: top and bottom are swapped
    scale: PerImage  # log2 of the factor, in units of 0.2
    angle: PerImage  # of the rotation, in radians, (-pi, pi)
    direction: PerImage  # of the stretching, in radians, (-pi, pi)
    stretch: PerImage  # log2 of the factor, in units of 0.2
    shift_x: PerImage  # to the right, in eighths of the side
    shift_y: PerImage  # downwards, in eighths of the side

    @property
    def is_resampled(self) -> Bool[Tensor, " batch"]:
        """Whether an image has any transformation other than flips."""
        return stack((self.scale, self.angle, self.stretch, self.shift_x, self.shift_y)).ne(0).any(dim=0)


def draw(ids: Int64[Tensor, " batch"], noise: SampleNoise, config: AugmentConfig) -> Draws:
    """The draws of the images at positions `ids` of the run."""
    chance = noise.uniform(ids, "augmentation chances", (6,)).unbind(dim=1)
    coin = noise.uniform(ids, "augmentation coin") < 0.5
    angle, direction = (noise.uniform(ids, "augmentation angles", (2,)) * (2 * math.pi) - math.pi).unbind(1)
    scale, stretch, shift_x, shift_y = noise.normal(ids, "augmentation sizes", (4,)).unbind(dim=1)

    def chosen(kind: int, is_on: bool, probability: float = config.probability) -> Bool[Tensor, " batch"]:
        return chance[kind] < (probability if is_on else 0.0)

    mirrored = chosen(0, config.flip_horizontal, 0.5 if config.probability else 0.0)
    inverted = chosen(1, config.flip_vertical) & coin
    is_scaled, is_turned = chosen(2, config.scaling), chosen(3, config.rotation)
    is_stretched, is_shifted = chosen(4, config.anisotropy), chosen(5, config.translation)
    return Draws(
        mirrored=mirrored.to(scale),
        inverted=inverted.to(scale),
        scale=scale.where(is_scaled, 0.0),
        angle=angle.where(is_turned, 0.0),
        direction=direction.where(is_stretched, 0.0),
        stretch=stretch.where(is_stretched, 0.0),
        shift_x=shift_x.where(is_shifted, 0.0),
        shift_y=shift_y.where(is_shifted, 0.0),
    )


def numbers_of(draws: Draws) -> Float[Tensor, "batch 9"]:
    """The numbers that condition the model, in k-diffusion's order and scale; zeros mean no transformation."""
    return stack(
        (
            draws.mirrored,
            draws.inverted,
            draws.scale,
            draws.angle.cos() - 1,
            draws.angle.sin(),
            draws.stretch * draws.direction.cos(),
            draws.stretch * draws.direction.sin(),
            draws.shift_x,
            draws.shift_y,
        ),
        dim=1,
    )


def linear_origin(draws: Draws) -> Matrices:
    """L of p = L q - d, the inverse of the linear part without flips: where the point q of the result comes from."""
    wide, narrow = 2 ** (-LOG2_FACTOR * draws.stretch), 2 ** (LOG2_FACTOR * draws.stretch)
    along = rotation(draws.direction)
    unstretched = product(along * stack((wide, narrow), dim=1)[:, None, :], along.transpose(1, 2))
    smaller = 2 ** (-LOG2_FACTOR * draws.scale)
    return product(unstretched, rotation(draws.angle)) * smaller[:, None, None]


def shift_in_sides(draws: Draws) -> Float[Tensor, "batch 2"]:
    """d of p = L q - d, in sides of the image."""
    return SHIFT * stack((draws.shift_x, draws.shift_y), dim=1)


def rotation(angle: PerImage) -> Matrices:
    """The rotation matrices R(angle)."""
    cos, sin = angle.cos(), angle.sin()
    return stack((stack((cos, -sin), dim=1), stack((sin, cos), dim=1)), dim=1)


def product(left: Matrices, right: Matrices) -> Matrices:
    """Matrix product by explicit sums, so that an image's matrix has the same bits in any batch."""
    return (left[:, :, :, None] * right[:, None, :, :]).sum(dim=2)


class Augmented(NamedTuple):
    """Transformed images, and the numbers that condition the model."""

    images: Images
    numbers: Float[Tensor, "batch 9"]


def augmented(
    images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, config: AugmentConfig
) -> Augmented:
    """Augment square images in [-1, 1] at positions `ids` of the run; untransformed images keep their bits."""
    draws = draw(ids, noise, config)
    return Augmented(transformed(images, draws), numbers_of(draws))


def transformed(images: Images, draws: Draws) -> Images:
    """Apply the draws to the images."""
    # selecting images by their draws costs nothing on a CPU, but would synchronise with a GPU
    resample = some_resampled if images.device.type == "cpu" else all_resampled
    moved = resample(images, draws)
    moved = where(by_image(draws.mirrored.bool()), moved.flip(-1), moved)
    return where(by_image(draws.inverted.bool()), moved.flip(-2), moved)


def some_resampled(images: Images, draws: Draws) -> Images:
    """Resample the images that have a transformation other than flips."""
    rows = draws.is_resampled.nonzero()[:, 0]
    chosen = Draws(*(value[rows] for value in draws))
    return images.index_copy(0, rows, resampled(images[rows], linear_origin(chosen), shift_in_sides(chosen)))


def all_resampled(images: Images, draws: Draws) -> Images:
    """Resample all images, and select on the device, without synchronisation."""
    moved = resampled(images, linear_origin(draws), shift_in_sides(draws))
    return where(by_image(draws.is_resampled), moved, images)


def by_image(is_chosen: Bool[Tensor, " batch"]) -> Bool[Tensor, "batch 1 1 1"]:
    """One choice per image, shaped to select whole images."""
    return is_chosen[:, None, None, None]


def resampled(images: Images, linear: Matrices, shift: Float[Tensor, "batch 2"]) -> Images:
    """out(q) = image(linear q - shift), where points are (x, y) from the image's centre and `shift` is in sides."""
    size = max(1, NUMBERS_AT_ONCE // images[:1].numel()) if len(images) else 1
    parts = zip(images.split(size), linear.split(size), shift.split(size), strict=True)
    return torch.cat([images[:0], *(part_resampled(*part) for part in parts)])


def part_resampled(images: Images, linear: Matrices, shift: Float[Tensor, "batch 2"]) -> Images:
    fine = along_both(upsampled, images)
    grid = fine_grid(images.shape[-1], linear.to(images), shift.to(images))
    moved = F.grid_sample(fine, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return along_both(decimated, moved)


def fine_grid(
    side: int, linear: Matrices, shift: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch fine fine 2"]:
    """The origin of each point of a grid twice as fine, for `grid_sample`; -1 and 1 are the outermost pixels."""
    points = torch.arange(-HALO, 2 * side - 1 + HALO, device=linear.device, dtype=linear.dtype)
    across = points / (side - 1) - 1
    down = across[:, None]
    shift = shift * (2 * side / (side - 1))
    entries = (linear[:, :, :, None, None] * torch.stack(torch.broadcast_tensors(across, down))).sum(dim=2)
    return (entries - shift[:, :, None, None]).movedim(1, -1)


def upsampled(images: Float[Tensor, "*batch side"]) -> Float[Tensor, "*batch fine"]:
    """Upsample from n to 2 n - 1 points along the last axis; the outermost points stay; 9/7 synthesis."""
    middle, near, even, far = SYNTHESIS
    padded = mirrored_about_ends(images, 2)
    fine = images.new_empty(*images.shape[:-1], 2 * images.shape[-1] - 1)
    fine[..., ::2] = middle * images + even * (padded[..., 1:-3] + padded[..., 3:-1])
    nearest, next_nearest = images[..., :-1] + images[..., 1:], padded[..., 1:-4] + padded[..., 4:-1]
    fine[..., 1::2] = near * nearest + far * next_nearest
    return fine


def decimated(fine: Float[Tensor, "*batch fine"]) -> Float[Tensor, "*batch side"]:
    """Every second point along the last axis after 9/7 analysis (low-pass); HALO points on both sides are dropped."""
    end = fine.shape[-1] - 2 * HALO
    total = ANALYSIS[0] * fine[..., HALO : HALO + end : 2]
    for offset, weight in enumerate(ANALYSIS[1:], start=1):
        before, behind = HALO - offset, HALO + offset
        total = total + weight * (fine[..., before : before + end : 2] + fine[..., behind : behind + end : 2])
    return total


def mirrored_about_ends(images: Float[Tensor, "*batch side"], count: int) -> Float[Tensor, "*batch longer"]:
    """`count` more points on both ends of the last axis: those next to the outermost, in reverse order."""
    before, behind = images[..., 1 : count + 1].flip(-1), images[..., -count - 1 : -1].flip(-1)
    return torch.cat((before, images, behind), dim=-1)


def along_both(resample: Callable[[Tensor], Tensor], images: Images) -> Images:
    """`resample`, which works along the last axis, along x and along y."""
    return resample(resample(images).mT).mT
