"""Features of real images are computed once; a file that holds them is whole."""

import pytest
import torch

from lediflow.evaluation.reference import cached_features


def test_features_are_computed_once(tmp_path):
    path, calls = tmp_path / "cache" / "reals.safetensors", []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(12.0).reshape(4, 3).T  # not contiguous, as a view may be

    first, second = cached_features(path, compute), cached_features(path, compute)
    assert len(calls) == 1
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_interrupted_computation_leaves_no_file(tmp_path):
    path = tmp_path / "reals.safetensors"

    def interrupted() -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features(path, interrupted)
    assert not path.exists()
    assert cached_features(path, lambda: torch.ones(2, 3)).shape == (2, 3)
