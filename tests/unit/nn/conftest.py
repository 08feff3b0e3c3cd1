"""Triton kernels on CPUs: the tests that ask for `interpreted` run them in Triton's interpreter."""

import pytest
import torch

from lediflow.nn import kernels


@pytest.fixture
def interpreted(monkeypatch):
    """The device whose tensors the kernels serve: the GPU where there is one, else a CPU by interpretation."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    monkeypatch.setattr(kernels, "interpreted", True)
    return torch.device("cpu")
