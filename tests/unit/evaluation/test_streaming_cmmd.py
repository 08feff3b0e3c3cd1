"""CMMD from two moments: close to the exact one within its bound, mergeable, with an honest interval."""

import math

import pytest
import torch
from harness.embeddings import clustered, spread
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd, cmmd_estimate
from lediflow.evaluation.tiles import whole

EXACT = 1e-10
LOOSEST = 6.7e-4  # four times 1000 e^-0.01 / (100^3 3!), the most a bound can be for unit vectors
SETS = {
    "spread": (spread(200, 64, seed=10), spread(150, 64, seed=11)),
    "shifted": (spread(200, 64, seed=10), spread(150, 64, seed=11, shift=0.2)),
    "far": (spread(200, 64, seed=10), spread(150, 64, seed=11, shift=2.0)),
    "clusters": (clustered(200, 64, seed=1), clustered(150, 64, seed=2)),
    "one cluster": (clustered(200, 5, seed=1, clusters=1), -clustered(150, 5, seed=2, clusters=1)),
    "few dimensions": (spread(60, 2, seed=3), clustered(50, 2, seed=4)),
}


def streamed(x: Tensor, batch: int = 10) -> StreamingCMMD:
    stream = StreamingCMMD(x.shape[1])
    for rows in x.split(batch):
        stream.update(rows)
    return stream


@pytest.mark.parametrize("name", SETS)
def test_value_and_bound_enclose_the_exact_value(name):
    x, y = SETS[name]
    value, bound = streamed(x).distance(streamed(y))
    assert value - EXACT <= cmmd(x, y) <= value + bound + EXACT
    assert bound <= LOOSEST


@pytest.mark.parametrize("name", SETS)
def test_unbiased_value_is_within_its_bound_of_the_exact_one(name):
    x, y = SETS[name]
    value, bound = streamed(x).unbiased_distance(streamed(y))
    assert abs(cmmd(x, y, unbiased=True) - value) <= bound + EXACT
    assert bound <= LOOSEST


def test_bound_is_nearly_reached_by_opposite_points():
    x = torch.nn.functional.one_hot(torch.zeros(5, dtype=torch.long), 6).double()
    value, bound = streamed(x).distance(streamed(-x))
    dropped = cmmd(x, -x) - value
    assert 0.99 * bound < dropped <= bound  # only the even terms of the tail, 0.25 % of it, vanish


def test_batches_of_any_size_give_the_same_value():
    x, y = SETS["clusters"]
    expected = streamed(x, batch=200).distance(streamed(y, batch=150))
    assert streamed(x, batch=7).distance(streamed(y, batch=1)) == pytest.approx(expected, abs=EXACT)


def test_merged_streams_are_one_stream():
    x, y = spread(64, 16, seed=12), spread(50, 16, seed=13)
    merged = streamed(x[:20]).merge(streamed(x[20:]))
    assert merged.distance(streamed(y)) == pytest.approx(streamed(x).distance(streamed(y)), abs=EXACT)
    assert merged.unbiased_distance(streamed(y)) == pytest.approx(
        streamed(x).unbiased_distance(streamed(y)), abs=EXACT
    )


def test_batches_are_grouped_by_their_number_on_any_rank():
    batches, other = spread(90, 8, seed=1).split(3), streamed(spread(60, 8, seed=2))
    alone = StreamingCMMD(8)
    for piece, batch in enumerate(batches):
        alone.update(batch, piece)
    parts = [StreamingCMMD(8) for _ in range(3)]
    for piece, batch in enumerate(batches):
        parts[piece % alone.groups % 3].update(batch, piece)
    together = parts[0].merge(parts[1]).merge(parts[2])
    assert together.distance(other) == alone.distance(other)
    assert together.interval(other) == alone.interval(other)


def test_reducing_over_one_rank_changes_nothing():
    x, y = (streamed(z) for z in SETS["shifted"])
    before = x.interval(y)
    assert x.reduce(Group()).interval(y) == before


def without_group(x: Tensor, groups: int, left_out: int) -> Tensor:
    """Rows of the batches of one row that are not dealt to a group."""
    return x[torch.arange(len(x)) % groups != left_out]


def test_standard_error_comes_from_leaving_each_group_out():
    x, y = spread(50, 6, seed=1), clustered(43, 6, seed=2)  # groups of two rows and of three
    a, b = streamed(x, batch=1), streamed(y, batch=1)
    value, groups, variance = a.unbiased_distance(b).value, a.groups, 0.0
    for z, left in ((x, lambda rest: (rest, b)), (y, lambda rest: (a, rest))):
        n, terms = len(z), []
        for group in range(groups):
            rest = without_group(z, groups, group)
            first, second = left(streamed(rest, batch=1))
            terms.append((n / (n - len(rest)), first.unbiased_distance(second).value))
        jackknifed = groups * value - sum((1 - 1 / h) * each for h, each in terms)  # Busing et al., eq. 5
        pseudo = [(h, h * value - (h - 1) * each) for h, each in terms]
        variance += sum((each - jackknifed) ** 2 / (h - 1) for h, each in pseudo) / groups
    assert a.standard_error(b) == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_standard_error_is_near_that_of_leaving_single_rows_out():
    x, y = spread(2000, 16, seed=1), spread(1500, 16, seed=2, shift=0.3)
    rough = streamed(x).standard_error(streamed(y))
    assert rough == pytest.approx(cmmd_estimate(whole(x), whole(y), Group()).standard_error, rel=0.4)


def test_intervals_have_about_their_nominal_coverage():
    truth = cmmd(spread(6000, 4, seed=10_001), spread(6000, 4, seed=10_002, shift=0.5), unbiased=True)
    hits, draws = 0, 150
    for draw in range(draws):
        x, y = spread(100, 4, seed=2 * draw), spread(80, 4, seed=2 * draw + 1, shift=0.5)
        low, high = streamed(x, batch=5).interval(streamed(y, batch=4))
        hits += low <= truth <= high
    assert 0.89 < hits / draws < 0.99  # 20 groups and a normal quantile: a little below 95 %


def test_a_jackknife_needs_more_than_one_group():
    x, y = SETS["spread"]
    with pytest.raises(ValueError, match=r"200 of 200 embeddings are in one group.*smaller batches"):
        streamed(x, batch=200).interval(streamed(y))


def test_statistics_of_different_extractors_are_not_merged():
    with pytest.raises(ValueError, match="same extractor"):
        StreamingCMMD(4).merge(StreamingCMMD(5))


def test_embeddings_that_are_not_normalised_are_refused():
    with pytest.raises(ValueError, match="normalise them first"):
        StreamingCMMD(4).update(torch.ones(2, 4))


def test_embeddings_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="normalise"):
        StreamingCMMD(4).update(torch.full((2, 4), torch.nan))


def test_another_dimension_and_an_empty_side_are_refused():
    with pytest.raises(ValueError, match="dim 4"):
        StreamingCMMD(4).update(torch.ones(2, 5))
    with pytest.raises(ValueError, match="empty set"):
        StreamingCMMD(4).distance(StreamingCMMD(4))
    one, other = (StreamingCMMD(dim).update(torch.eye(dim)) for dim in (1, 4))  # 1 would broadcast to 4
    with pytest.raises(ValueError, match="dimensions 1 and 4; use one feature extractor"):
        one.distance(other)


def test_moments_hold_no_graph_of_embeddings_with_gradients():
    stream = StreamingCMMD(4).update(torch.eye(4, requires_grad=True))
    assert not any(tensor.requires_grad for tensor in stream.tensors().values())
