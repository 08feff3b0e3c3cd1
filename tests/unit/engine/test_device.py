"""The device of a rank, by its option."""

import pytest
import torch

from lediflow.engine.device import choose_device
from lediflow.errors import UserError


def test_auto_finds_a_device_and_cpu_is_cpu():
    assert choose_device("auto").type in ("cpu", "cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_device_that_pytorch_does_not_know_is_refused():
    with pytest.raises(UserError, match="device=foo is not known to PyTorch; use auto, cpu or cuda"):
        choose_device("foo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"device=cuda .*sees no CUDA GPU.*device=auto"):
        choose_device("cuda")
