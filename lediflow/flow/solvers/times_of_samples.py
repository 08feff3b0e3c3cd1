"""Whether a velocity gives every sample a time of its own, t of shape (batch,), or takes one time for all.

The slope of a sample must be a function of that sample's time, whatever the others'. So the slopes at one time for
all, early and late, are compared with those where some samples are early and some late. Any two samples are apart in
one of the patterns, the binary digits of their numbers; an entry of x that listens to another sample's time is seen
there. The state is one without zeros and the times without a simple ratio to the interval, since what is zero, or
returns periodically, could look alike at different times.
"""

import torch
from torch import Tensor

from lediflow.flow.solvers.problem import CountedVelocity, State, UnfitVelocityError, at, beside

EARLY, LATE = 0.1180340, 0.9270510  # parts of the interval
FINAL = (UnfitVelocityError, torch.OutOfMemoryError)  # other shapes of times would not help
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def slope_at_own_times(velocity: CountedVelocity, x: State, start: float, end: float) -> State | None:
    """The slope at the start, for times of shape (batch,); None: the velocity does not tell these times apart."""
    try:
        slope = velocity(x, at(start, x, (len(x),)))
        return slope if tells_times_apart(velocity, without_zeros(x), start, end) else None
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # shapes or types that do not meet
        if isinstance(error, FINAL) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return None


@torch.no_grad()
def tells_times_apart(velocity: CountedVelocity, x: State, start: float, end: float) -> bool:
    """Whether each sample's slope is that of its own time, in every pattern of early and late samples."""
    early, late = (at(start + part * (end - start), x, (len(x),)) for part in (EARLY, LATE))
    slope_early, slope_late = velocity(x, early), velocity(x, late)
    for is_late in patterns(len(x), x.device):
        found = velocity(x, torch.where(is_late, late, early))
        expected = torch.where(beside(is_late, x), slope_late, slope_early)
        tolerance = torch.finfo(found.dtype).eps ** 0.5
        if not torch.allclose(found, expected, rtol=tolerance, atol=0.0, equal_nan=True):
            return False
    return True


def patterns(count: int, device: torch.device) -> list[Tensor]:
    """The binary digits of the numbers below `count`: each pair of numbers differs in one of them."""
    number = torch.arange(count, device=device)
    return [(number >> digit) % 2 == 1 for digit in range((count - 1).bit_length())]


def without_zeros(x: State) -> State:
    """x with every entry moved away from zero, by numbers that follow no pattern."""
    place = torch.arange(x.numel(), device=x.device).view(x.shape)
    step = (0.5 + 0.4 * torch.cos(1.7 * place)).to(x.dtype) * (1 + x.detach().abs())
    return x.detach() + torch.where(x < 0, -step, step)
