"""Derivatives of a network along a direction of its inputs, by forward-mode differentiation (`torch.func.jvp`).

Fused attention and this package's Triton kernels have no forward mode. With PyTorch 2.13 what happens then depends on
the operation and on the compiler: an error (fused attention in eager mode), or a derivative that is left out without a
word (NATTEN and FlexAttention in eager mode under `forward_ad`; fused attention in code that torch.compile generates).
Inside `forward_mode` networks therefore compute with operations that have one: attention over a neighborhood takes the
route sdpa, PyTorch's attention its implementation in elementary operations, and Triton kernels are replaced by their
definitions. Networks call `is_forward_mode` for that.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ROUTE = "sdpa"  # of neighborhood attention; dense has a forward mode, too, and is slower

_is_active = False


def is_forward_mode() -> bool:
    """Whether networks must compute with operations that have a forward mode."""
    return _is_active


@contextmanager
def forward_mode() -> Iterator[None]:
    """A context in which networks can be differentiated forward; for one thread at a time."""
    global _is_active
    before, _is_active = _is_active, True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _is_active = before


@torch.no_grad()
def derivative(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], directions: tuple[Tensor, ...]
) -> Tensor:
    """The derivative of a network's output as its inputs move along `directions`, without a graph of its own."""
    with forward_mode():
        found: Tensor = torch.func.jvp(function, inputs, directions)[1]
    return found.detach()


@torch.no_grad()
def central_difference(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], directions: tuple[Tensor, ...], step: float
) -> Tensor:
    """What `derivative` is the limit of as `step` falls, by two calls of the function."""
    ahead, behind = (
        function(*(x + sign * step * d for x, d in zip(inputs, directions, strict=True))) for sign in (1, -1)
    )
    return (ahead - behind) / (2 * step)
