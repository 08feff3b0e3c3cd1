"""Images along an affine map, without aliasing: upsampled by two, interpolated, and decimated by two.

The scheme is EDM's, with different filters. Upsampling and decimation use the low-pass halves of the
Cohen-Daubechies-Feuveau 9/7 wavelet (JPEG 2000): they are symmetric and invert each other exactly, unlike EDM's sym6.
So the identity, shifts by whole pixels, flips and quarter turns reproduce the pixels, up to rounding. Decimation
removes the frequencies that a smaller image cannot represent, down to half the size.

Beyond the border the image is continued by reflection about its outermost pixels, without repeating them, at any
distance (k-diffusion's `reflect`). Interpolation may overshoot [-1, 1] at edges; nothing is clipped, as in both
references.

An image's result does not depend on the other images of a batch, to the bit.
Source: Cohen, Daubechies & Feuveau (1992); coefficients: ISO/IEC 15444-1, annex F.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
