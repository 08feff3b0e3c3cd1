"""The time limits of tests/cluster allow for a busy machine."""

import pytest
from harness.patience import SMALLEST_SHARE, Patience, share_of_core


def seconds_until_over(seconds, share, every=1.0):
    """How long a Patience lasts on a machine that gives a process this share of a core."""
    now = 0.0
    patience = Patience(seconds, measure=lambda: share, clock=lambda: now)
    while not patience.is_over():
        now += every
    return now


@pytest.mark.parametrize(("share", "factor"), [(1.0, 1), (0.5, 2), (0.2, 5), (0.001, 1 / SMALLEST_SHARE)])
def test_a_limit_is_extended_by_the_slowness_of_the_machine(share, factor):
    # the speed is known from the first measurement on, after 5 s
    assert seconds_until_over(300, share) == pytest.approx(300 * factor, abs=5 * factor + 1)


def test_the_measured_share_of_a_core_is_a_share():
    assert 0 < share_of_core(0.01) <= 1
