"""How a global batch is shared among ranks and micro-batches."""

import pytest

from lediflow.engine.protocol import accumulation_steps


@pytest.mark.parametrize(
    ("world_size", "micro_batch", "expected"),
    [(1, 0, (64, 1)), (4, 0, (16, 1)), (2, 8, (8, 4)), (2, 1000, (32, 1))],
    ids=["all at once", "a rank's share", "accumulated", "no more than there is"],
)
def test_ranks_times_micro_batch_times_accumulation_is_the_global_batch(world_size, micro_batch, expected):
    assert accumulation_steps(64, world_size, micro_batch) == expected
    assert world_size * expected[0] * expected[1] == 64


def test_a_batch_that_ranks_cannot_share_is_refused_with_a_valid_number():
    with pytest.raises(
        ValueError, match=r"global_batch=64 cannot be split evenly over 3 ranks; use a multiple of 3"
    ):
        accumulation_steps(64, 3, 0)


def test_a_micro_batch_that_does_not_divide_the_share_is_refused():
    with pytest.raises(
        ValueError, match=r"micro_batch=5 does not divide a rank's share of 32.*a divisor of 32"
    ):
        accumulation_steps(64, 2, 5)
