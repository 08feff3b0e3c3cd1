"""A watch on the routes: one that gives values that are no numbers where the oracle gives numbers is replaced.

Inside `checked_routes` models run eagerly and without gradient, and every call of neighborhood attention is looked
at: forward, and backward where gradients are on around it. The oracle is asked only about an image whose values are
not finite. A route that failed in one direction is replaced in both.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lediflow.nn.neighborhood import dense
from lediflow.nn.neighborhood.protocol import NeighborhoodAttention, Problem
from lediflow.nn.shapes import Heads

is_on = False
goes_backward = False  # whether the check that is on looks at backward passes too
replacements: dict[
    tuple[str, Problem], str
] = {}  # (route that failed, problem) -> the one that took its place


@contextmanager
def checked_routes() -> Iterator[None]:
    """Check every route that a model uses in here; compiled models are compiled anew if one was replaced."""
    global is_on, goes_backward
    before, is_on, goes_backward = len(replacements), True, torch.is_grad_enabled()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        is_on = goes_backward = False
        if len(replacements) > before:
            torch.compiler.reset()


def known_to_fail(problem: Problem) -> set[str]:
    """The routes that were replaced for a problem."""
    return {name for name, other in replacements if other == problem}


def is_broken(
    problem: Problem, attention: NeighborhoodAttention, inputs: tuple[Heads, Heads, Heads], scale: float
) -> bool:
    """Whether a route gives values that are not finite for inputs of which the oracle makes finite ones."""
    image = first_image_beyond_numbers(values(problem, attention, inputs, scale))
    if image is None:
        return False
    q, k, v = (x[image : image + 1] for x in inputs)
    return first_image_beyond_numbers(values(problem, dense.attention, (q, k, v), scale)) is None


def replace(name: str, problem: Problem, other: str) -> None:
    """Have another route serve the problem wherever this one would have, or one that it had replaced."""
    for failed in {name} | known_to_fail(problem):
        replacements[failed, problem] = other


def values(
    problem: Problem, attention: NeighborhoodAttention, inputs: tuple[Heads, Heads, Heads], scale: float
) -> tuple[Tensor, ...]:
    """What a route makes of q, k and v, and in training the gradients of its sum."""
    with torch.set_grad_enabled(problem.is_training):
        q, k, v = (x.detach().requires_grad_(problem.is_training) for x in inputs)
        mixed = attention(q, k, v, problem.kernel_size, scale=scale)
        if not problem.is_training:
            return (mixed,)
        return mixed.detach(), *torch.autograd.grad(mixed, (q, k, v), torch.ones_like(mixed))


def first_image_beyond_numbers(tensors: tuple[Tensor, ...]) -> int | None:
    """The first image with a value that is not finite in one of the tensors."""
    finite = torch.stack([x.isfinite().flatten(start_dim=1).all(dim=1) for x in tensors]).all(dim=0)
    return None if bool(finite.all()) else int((~finite).int().argmax())
