"""A watch on the routes: one that gives values that are no numbers where the oracle gives numbers is replaced.

Inside `checked_routes` models run eagerly and without gradient, and every call of neighborhood attention is looked
at, forward and backward. The oracle is asked only about an image whose values are not finite.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lediflow.nn.neighborhood import dense
from lediflow.nn.neighborhood.protocol import NeighborhoodAttention, Problem
from lediflow.nn.shapes import Heads

log = logging.getLogger(__name__)

is_on = False
replacements: dict[
    tuple[str, Problem], str
] = {}  # (route that failed, problem) -> the one that took its place


@contextmanager
def checked_routes() -> Iterator[None]:
    """Check every route that a model uses in here; compiled models are compiled anew if one was replaced."""
    global is_on
    before, is_on = len(replacements), True
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        is_on = False
        if len(replacements) > before:
            torch.compiler.reset()


def is_broken(
    problem: Problem, attention: NeighborhoodAttention, inputs: tuple[Heads, Heads, Heads], scale: float
) -> bool:
    """Whether a route gives values that are not finite for inputs of which the oracle makes finite ones."""
    image = first_image_beyond_numbers(values(attention, inputs, problem.kernel_size, scale))
    if image is None:
        return False
    one = tuple(x[image : image + 1] for x in inputs)
    return first_image_beyond_numbers(values(dense.attention, one, problem.kernel_size, scale)) is None


def replace(name: str, problem: Problem, other: str) -> None:
    """Have another route serve the problem wherever this one would have, and say so."""
    replacements[name, problem] = other
    log.warning(
        "neighborhood attention, %s: route %r gives values that are not finite where the oracle's are; "
        "route %r takes its place",
        problem,
        name,
        other,
    )


@torch.enable_grad()
def values(
    attention: NeighborhoodAttention, inputs: tuple[Heads, ...], kernel_size: int, scale: float
) -> tuple[Tensor, ...]:
    """What a route makes of q, k and v, and the gradients of its sum."""
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    mixed = attention(q, k, v, kernel_size, scale=scale)
    return mixed.detach(), *torch.autograd.grad(mixed, (q, k, v), torch.ones_like(mixed))


def first_image_beyond_numbers(tensors: tuple[Tensor, ...]) -> int | None:
    """The first image with a value that is not finite in one of the tensors."""
    finite = torch.stack([x.isfinite().flatten(start_dim=1).all(dim=1) for x in tensors]).all(dim=0)
    return None if bool(finite.all()) else int((~finite).int().argmax())
