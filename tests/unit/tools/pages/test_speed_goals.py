"""The table of goals for speed, from rows as tools/bench writes them."""

import json

import pytest

from pages.speed import goals


@pytest.mark.parametrize(
    ("limit", "is_least", "per", "expected"),
    [
        (2.0, False, "", ["w", "at most 2 ms", "2 ms", "met"]),
        (1.9, False, "", ["w", "at most 1.9 ms", "2 ms", "missed"]),
        (1.9, True, "", ["w", "at least 1.9 ms", "2 ms", "met"]),
        (0.5, False, "NFE", ["w", "at most 0.5 ms", "0.5 ms", "met"]),
    ],
)
def test_the_first_row_with_the_wanted_values_decides(tmp_path, limit, is_least, per, expected):
    rows = [{"part": "flow", "ms": 1.0, "NFE": 1}, {"part": "chain", "ms": 2.0, "NFE": 4}]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x.json").write_text(json.dumps({"results": {"rows": rows}}))
    goal = goals.Goal("w", "x", {"part": "chain"}, "ms", limit, " ms", is_least, per)
    assert goal.line(tmp_path) == expected


def test_what_has_not_been_measured_says_so(tmp_path):
    lines = goals.block(tmp_path).splitlines()[2:]
    assert len(lines) == len(goals.GOALS)
    assert {line.split(" | ")[2] for line in lines} == {"not measured"}
