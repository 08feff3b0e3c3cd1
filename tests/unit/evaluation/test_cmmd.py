"""MMD with a Gaussian kernel, against a sum written out pair by pair and against the clip-mmd package."""

import math
from importlib import import_module

import pytest
import torch
from torch import Tensor

from lediflow.evaluation import cmmd as module
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd

EXACT = 1e-10  # float64 rounding of sums of a few thousand kernel values, times 1000


def embeddings(count: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, dim, generator=generator, dtype=torch.float64) + shift
    return torch.nn.functional.normalize(drawn, dim=1)


def pair_by_pair(x: Tensor, y: Tensor, sigma: float, scale: float, unbiased: bool) -> float:
    """MMD^2 as the definition reads."""

    def kernel(a: Tensor, b: Tensor) -> float:
        return math.exp(-(a - b).square().sum().item() / (2 * sigma**2))

    def within(z: Tensor) -> float:
        values = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j or not unbiased]
        return math.fsum(values) / len(values)

    between = math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return scale * (within(x) + within(y) - 2 * between)


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize(("sigma", "scale"), [(10.0, 1000.0), (0.5, 1.0)])
def test_value_is_the_definition_summed_pair_by_pair(sigma, scale, unbiased):
    x, y = embeddings(23, 5, seed=0), embeddings(17, 5, seed=1, shift=0.5)
    value = cmmd(x, y, sigma=sigma, scale=scale, unbiased=unbiased)
    assert value == pytest.approx(pair_by_pair(x, y, sigma, scale, unbiased), abs=EXACT)


def test_biased_value_is_that_of_the_clip_mmd_package():
    oracle = import_module("clip_mmd.calculation")
    x, y = embeddings(60, 32, seed=2), embeddings(45, 32, seed=3, shift=0.2)
    assert cmmd(x, y) == pytest.approx(oracle.mmd(x, y).item(), abs=EXACT)


def test_float32_embeddings_lose_nothing_to_cancellation():
    x, y = embeddings(60, 32, seed=2).float(), embeddings(45, 32, seed=3).float()
    assert cmmd(x, y) == cmmd(x.double(), y.double())


def test_two_points_have_the_closed_form():
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert cmmd(x, y) == pytest.approx(
        1000 * 2 * (1 - math.exp(-25 / 200)), abs=EXACT
    )  # distance 5, sigma 10


def test_embeddings_are_taken_as_given():
    x, y = embeddings(20, 8, seed=4), embeddings(20, 8, seed=5)
    assert cmmd(3 * x, 3 * y, sigma=30.0) == pytest.approx(cmmd(x, y, sigma=10.0), abs=EXACT)


def test_distance_to_itself_is_zero_and_the_order_of_the_sets_does_not_matter():
    x, y = embeddings(30, 8, seed=6), embeddings(40, 8, seed=7)
    assert cmmd(x, x.clone()) == pytest.approx(0, abs=EXACT)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), abs=EXACT)


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
def test_block_size_does_not_change_the_value(monkeypatch, unbiased):
    x, y = embeddings(50, 8, seed=8), embeddings(33, 8, seed=9)
    whole = cmmd(x, y, unbiased=unbiased)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert cmmd(x, y, unbiased=unbiased) == pytest.approx(whole, abs=EXACT)


def test_unbiased_value_averages_to_zero_over_samples_of_one_distribution():
    pairs = [(embeddings(20, 4, seed=2 * k), embeddings(20, 4, seed=2 * k + 1)) for k in range(200)]
    unbiased = torch.tensor([cmmd(x, y, unbiased=True) for x, y in pairs])
    biased = torch.tensor([cmmd(x, y) for x, y in pairs])
    standard_error = (unbiased.std() / len(pairs) ** 0.5).item()
    assert abs(unbiased.mean().item()) < 4 * standard_error  # chance of 6e-5, and the seeds are fixed
    assert biased.mean() > 10 * standard_error


def test_sets_from_different_extractors_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(4, 9\).*one feature extractor"):
        cmmd(torch.zeros(4, 8), torch.zeros(4, 9))


def test_sets_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 2 needed"):
        cmmd(torch.zeros(1, 8), torch.zeros(5, 8), unbiased=True)


def streamed(x: Tensor, batch: int = 10) -> StreamingCMMD:
    stream = StreamingCMMD(x.shape[1])
    for rows in x.split(batch):
        stream.update(rows)
    return stream


@pytest.mark.parametrize("shift", [0.0, 0.2, 2.0])
def test_streamed_value_and_bound_enclose_the_exact_value(shift):
    x, y = embeddings(200, 64, seed=10), embeddings(150, 64, seed=11, shift=shift)
    value, bound = streamed(x).distance(streamed(y))
    assert value - EXACT <= cmmd(x, y) <= value + bound + EXACT
    assert bound <= 6.7e-4  # four times 1000 e^-0.01 / (100^3 3!), the most it can be for unit vectors


def test_bound_is_nearly_reached_by_opposite_points():
    x = torch.nn.functional.one_hot(torch.zeros(5, dtype=torch.long), 6).double()
    value, bound = streamed(x).distance(streamed(-x))
    dropped = cmmd(x, -x) - value
    assert 0.99 * bound < dropped <= bound  # only the even terms of the tail, 0.25 % of it, vanish


def test_merged_streams_are_one_stream():
    x, y = embeddings(64, 16, seed=12), embeddings(50, 16, seed=13)
    merged = streamed(x[:20]).merge(streamed(x[20:]))
    assert merged.distance(streamed(y)) == pytest.approx(streamed(x).distance(streamed(y)), abs=EXACT)


def test_stream_refuses_embeddings_that_nobody_normalised():
    with pytest.raises(ValueError, match="normalise them first"):
        StreamingCMMD(4).update(torch.ones(2, 4))


def test_stream_refuses_embeddings_that_are_not_numbers():
    with pytest.raises(ValueError, match="normalise"):
        StreamingCMMD(4).update(torch.full((2, 4), torch.nan))


def test_stream_refuses_another_dimension_and_an_empty_side():
    with pytest.raises(ValueError, match="dim 4"):
        StreamingCMMD(4).update(torch.ones(2, 5))
    with pytest.raises(ValueError, match="empty set"):
        StreamingCMMD(4).distance(StreamingCMMD(4))
