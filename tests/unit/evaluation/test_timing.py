"""Milliseconds per image, on a clock that the test moves."""

import pytest

from lediflow.evaluation import timing
from lediflow.evaluation.timing import milliseconds_per_image


def test_time_is_the_median_of_the_repeats_divided_by_the_images(monkeypatch):
    clock = {"seconds": 0.0}
    durations = iter([9.0, 0.4, 0.2, 0.8])  # the warm-up first
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["seconds"])

    def make_images() -> None:
        clock["seconds"] += next(durations)

    measured = milliseconds_per_image(make_images, images=4, repeats=3)
    assert measured.median_ms == pytest.approx(100)
    assert (measured.fastest_ms, measured.slowest_ms) == pytest.approx((50, 200))
    assert measured.repeats == 3
