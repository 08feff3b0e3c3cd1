"""How labels are written, and which class each is."""

import pytest

from lediflow.data.sources.labels import as_label, numbered


@pytest.mark.parametrize("written", ["3", " 3\n", "3.0", "3.", "03", 3, 3.0])
def test_a_whole_number_in_any_notation_is_that_class(written):
    assert as_label(written) == 3


@pytest.mark.parametrize("written", [None, "", " \n", "nan", "NaN", float("nan"), -1, "-1", -1.0, "-1.0"])
def test_empty_nan_and_negative_labels_count_as_none(written):
    assert as_label(written) is None


@pytest.mark.parametrize(
    "written", ["--5", "\u00b2", "-", "1.5", "1e3", "inf", "cat", "9" * 5000, "2024-01-31"]
)
def test_anything_else_is_a_name(written):
    assert as_label(written) == written


def test_true_and_false_are_names_in_json_and_in_tables_alike():
    assert numbered([as_label(value) for value in (True, "False", False, "True")]) == (
        [1, 0, 0, 1],
        ["False", "True"],
    )
