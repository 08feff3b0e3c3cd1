"""Prefetching: the order of results, the bounded depth, and an early end that leaves no threads."""

import threading
import time
from contextlib import closing

import pytest

from lediflow.data.workers import prefetch


def test_results_have_the_order_of_their_items():
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return number * number

    squares = prefetch(slow_at_first, range(20), threads=4, depth=4)
    assert list(squares) == [number * number for number in range(20)]


def test_at_most_depth_items_are_started_in_advance():
    begun: list[int] = []
    results = prefetch(begun.append, range(100), threads=2, depth=3)
    next(results)
    next(results)
    results.close()
    assert len(begun) <= 2 + 3


def test_an_error_reaches_the_caller_at_its_place():
    def refuse_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = prefetch(refuse_two, range(5), threads=2, depth=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    with closing(prefetch(abs, range(1000), threads=4, depth=4)) as results:
        next(results)
    assert threading.active_count() == before
