"""The table of logged numbers: names, patterns, and what is found for them."""

import pytest

from lediflow.engine.timings import NAMES
from lediflow.engine.timings import QUANTILES as RECORDED
from lediflow.tracking.metrics import PARTS, QUANTILES, VALUES, find_value, unknown_names, value_of


def test_an_entry_has_title_unit_direction_and_summaries():
    found = value_of("train/images_per_second")
    assert found.heading == "throughput (images/s)"
    assert (found.better, found.summaries) == ("higher", ("max", "last"))


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("train/loss_by_time/3", "loss, time bin 3"),
        ("validation/loss_by_time/3", "held-out loss, time bin 3"),
        ("ranks/data_p95/12", "wait for data, 95 % quantile, rank 12 (s)"),
        ("stall/ranks/1/steps", "stall, rank 1: steps"),
    ],
)
def test_a_pattern_names_its_parts_in_the_title(name, heading):
    assert value_of(name).heading == heading


def test_a_wildcard_stands_for_one_part():
    assert find_value("train/loss_by_time") is None
    assert find_value("train/loss_by_time/3/4") is None


def test_a_number_without_entry_is_shown_under_its_name():
    assert find_value("train/new_thing/0") is None
    assert value_of("train/new_thing/0").heading == "train, new thing, 0"


def test_numbers_without_entry_are_found_in_events():
    events = [{"event": "train", "images_seen": 4, "time": "", "loss": "nan", "news": [1, 2], "word": "loss"}]
    assert unknown_names(events) == ["train/news/0", "train/news/1"]


def test_timings_of_ranks_are_named_as_they_are_recorded():
    assert tuple(PARTS) == NAMES and list(QUANTILES) == list(RECORDED)


def test_titles_tell_all_entries_apart():
    titles = [value.heading for value in VALUES.values()]
    assert len(set(titles)) == len(titles)
