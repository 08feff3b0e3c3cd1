"""Cached tensors that are created inside a transform or in inference mode serve all later calls."""

import pytest
import torch

from lediflow.nn import rope
from lediflow.nn.neighborhood import flex, plain

CPU = torch.device("cpu")


def made_inside_a_transform_and_inference_mode(make):
    """What `make` returns when it is called within torch.func.jvp in inference mode."""
    made = []

    def function(x):
        made.append(make())
        return 2 * x

    with torch.inference_mode():
        torch.func.jvp(function, (torch.ones(2),), (torch.ones(2),))
    return made[0]


def has_storage(tensor):
    """Whether it is no wrapper of a transform: those have none."""
    try:
        return tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:
        return False


CACHES = {
    "masks": (plain._kept_mask, (6, 6, 3, CPU)),
    "tables of blocks": (flex._tables, (flex.Grid(16, 16), 3, CPU)),
    "rotations": (rope.kept_rotations, (4, 4, 2, 16, 0, torch.float32, CPU)),
}


@pytest.mark.parametrize("name", CACHES)
def test_what_is_cached_inside_a_transform_serves_outside(name):
    cached, arguments = CACHES[name]
    cached.cache_clear()
    made = made_inside_a_transform_and_inference_mode(lambda: cached(*arguments))
    for tensor in made if isinstance(made, tuple) else [made]:
        assert has_storage(tensor)
        assert not tensor.is_inference()
        assert not tensor.requires_grad


def test_a_tensor_created_without_the_context_does_not():
    tensor = made_inside_a_transform_and_inference_mode(lambda: torch.arange(3.0))
    assert not has_storage(tensor)
