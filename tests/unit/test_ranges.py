"""A number outside of its field's range is named with its range; NaN always is outside."""

import math
from dataclasses import dataclass, field

import pytest

from lediflow.errors import UserError
from lediflow.ranges import OutOfRangeError, Range, bounded, check_ranges, range_of, seed_field


@dataclass(kw_only=True)
class Part:
    share: float = bounded(0.5, at_least=0, below=1)


@dataclass(kw_only=True)
class Whole:
    count: int = bounded(1, at_least=1)
    rate: float = bounded(1.0)
    cap: float | None = bounded(None, above=0, or_infinity=True)
    seed: int = seed_field()
    steps: list[int] = bounded(default_factory=lambda: [1], at_least=0, is_filled=True, is_distinct=True)
    mean: list[float] = bounded(default_factory=lambda: [0.0, 1.0], entries=2)
    part: Part = field(default_factory=Part)
    parts: list[Part] = field(default_factory=list)
    free: int = 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "count=0 must be at least 1"),
        ({"count": 1.5}, "count=1.5 must be a whole number, at least 1"),
        ({"count": True}, "count=True must be a whole number, at least 1"),
        ({"count": "3"}, "count='3' must be a whole number, at least 1"),
        ({"count": 2**63}, f"count={2**63} must be at least 1 and at most {2**63 - 1}"),
        ({"rate": math.nan}, "rate=nan must be finite"),
        ({"rate": -math.inf}, "rate=-inf must be finite"),
        ({"cap": math.nan}, "cap=nan must be above 0, or inf"),
        ({"cap": 0}, "cap=0 must be above 0, or inf"),
        ({"seed": 2**64}, f"seed={2**64} must be at least 0 and at most 2^64 - 1"),
        ({"steps": []}, "steps=[] is empty; give at least one value"),
        ({"steps": [2, 2]}, "steps=[2, 2] has 2 more than once; give each value once"),
        ({"steps": [1, -1]}, "steps[1]=-1 must be at least 0"),
        ({"mean": [1.0]}, "mean=[1.0] has length 1; give 2 values"),
        ({"part": Part(share=1)}, "part.share=1 must be at least 0 and below 1"),
        ({"parts": [Part(), Part(share=-1)]}, "parts[1].share=-1 must be at least 0 and below 1"),
    ],
)
def test_a_number_out_of_its_range_is_named(values, words):
    with pytest.raises(OutOfRangeError) as refused:
        check_ranges(Whole(**values))
    assert str(refused.value) == words
    assert isinstance(refused.value, UserError) and isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cap": math.inf},
        {"seed": 2**64 - 1},
        {"steps": [0, 1]},
        {"count": 2**63 - 1},
        {"rate": 3},
        {"free": -1},
    ],
)
def test_numbers_inside_are_accepted(values):
    check_ranges(Whole(**values))


def test_a_range_is_printed_in_words():
    assert str(range_of(Whole, "steps")) == "at least 0, filled, distinct"
    assert str(Range()) == "finite"
    assert range_of(Whole, "free") is None
