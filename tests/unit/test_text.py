"""Durations in units that people use, and tables whose columns line up."""

import pytest

from lediflow.text import PLANNED, aligned_row, aligned_table, duration, facts_table, number_table, shown_hash


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (42, "42 s"), (99.4, "99 s"), (99.5, "2 min"), (1200, "20 min"), (3569, "59 min"),
        (3570, "1 h 00 min"), (3 * 3600 + 300, "3 h 05 min"), (170_999, "47 h 30 min"), (52 * 3600, "2 d 4 h"),
    ],
)  # fmt: skip
def test_durations_are_readable(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (12, "12 s"), (119, "119 s"), (150, "2 min"), (3599, "60 min"), (7_500, "2 h 05 min"),
        (3_600 * 24, "1 d 0 h"), (3_600 * 30.4, "1 d 6 h"),
    ],
)  # fmt: skip
def test_planned_durations_use_days_from_one_day_on(seconds, said):
    assert duration(seconds, PLANNED) == said


def test_people_see_twelve_digits_of_a_hash_and_the_word_for_a_missing_one():
    assert shown_hash("ba7816bf8f01cfea414140de") == "ba7816bf8f01"
    assert shown_hash(None) == "None"


def test_numbers_are_right_aligned_and_words_left_aligned():
    assert number_table([["on", "n"], ["a", "5"], ["bcd", "1,000"]]).splitlines() == [
        "  on       n",
        "  a        5",
        "  bcd  1,000",
    ]


def test_columns_line_up_without_blanks_at_the_end_of_a_line():
    assert aligned_table([["a", "10", "x"], ["bcd", "5", ""]], right=[False, True, False]).splitlines() == [
        "a    10  x",
        "bcd   5",
    ]
    assert aligned_row(["a", "wider"], [2, 0]) == "a   wider"


def test_facts_have_their_values_below_each_other():
    assert facts_table([("free", "1 GB"), ("at most", "2 GB")]) == "  free     1 GB\n  at most  2 GB"
