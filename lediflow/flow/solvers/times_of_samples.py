"""Checks, with a few calls, whether velocity(x, t) accepts one time per sample, t of shape (batch,).

A sample's slope must depend on its own time only. The slopes with all samples at an early time and all at a late
time are compared with those where some samples are early and others late. The patterns are the binary digits of
the sample indices, so any two samples differ in one of them, and a dependence on another sample's time is detected.
The state has no zeros, and the two times have no simple ratio to the interval, because zeros or periodic functions
could give equal slopes at different times.
"""

import torch
from torch import Tensor

from lediflow.flow.solvers.problem import CountedVelocity, State, UnfitVelocityError, as_time, by_sample

EARLY, LATE = 0.1180340, 0.9270510  # fractions of the interval
FINAL = (UnfitVelocityError, torch.OutOfMemoryError)  # errors that do not depend on the shape of t
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def slope_at_own_times(velocity: CountedVelocity, x: State, start: float, end: float) -> State | None:
    """The slope at the start, for times of shape (batch,); None if velocity does not accept one time per sample."""
    try:
        slope = velocity(x, as_time(start, x, (len(x),)))
        return slope if accepts_time_per_sample(velocity, without_zeros(x), start, end) else None
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # shapes or types that do not match
        if isinstance(error, FINAL) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return None


@torch.no_grad()
def accepts_time_per_sample(velocity: CountedVelocity, x: State, start: float, end: float) -> bool:
    """Whether each sample's slope depends on its own time only, in every pattern of early and late samples."""
    early, late = (as_time(start + part * (end - start), x, (len(x),)) for part in (EARLY, LATE))
    slope_early, slope_late = velocity(x, early), velocity(x, late)
    for is_late in patterns(len(x), x.device):
        found = velocity(x, torch.where(is_late, late, early))
        expected = torch.where(by_sample(is_late, x), slope_late, slope_early)
        tolerance = torch.finfo(found.dtype).eps ** 0.5
        if not torch.allclose(found, expected, rtol=tolerance, atol=0.0, equal_nan=True):
            return False
    return True


def patterns(count: int, device: torch.device) -> list[Tensor]:
    """The binary digits of 0 ... count - 1, one mask per digit; any two numbers differ in one of them."""
    number = torch.arange(count, device=device)
    return [(number >> digit) % 2 == 1 for digit in range((count - 1).bit_length())]


def without_zeros(x: State) -> State:
    """x with every entry moved away from zero by irregular amounts."""
    place = torch.arange(x.numel(), device=x.device).view(x.shape)
    step = (0.5 + 0.4 * torch.cos(1.7 * place)).to(x.dtype) * (1 + x.detach().abs())
    return x.detach() + torch.where(x < 0, -step, step)
