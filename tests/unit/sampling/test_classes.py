"""Classes by number and by name."""

import pytest

from lediflow.errors import UserError
from lediflow.sampling.classes import class_numbers

SORTED = ["1", "10", "2", "bee"]  # as folders 1, 2, 10 and bee are numbered


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["bee", 0, "ant"], ["ant", "bee"], [1, 0, 0]),
        (["cafe\u0301"], ["caf\u00e9"], [0]),
        (["10", "1", 3], SORTED, [1, 0, 3]),
        ([0, 1], ["0", "1"], [0, 1]),
        ([2, 0], [], [2, 0]),
    ],
    ids=["both", "accents", "numeric-names", "names-that-are-their-numbers", "no-names"],
)
def test_text_is_a_name_and_a_whole_number_a_number(labels, names, numbers):
    assert class_numbers(labels, names, len(names) or 3) == numbers


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (
            1,
            SORTED,
            r"may mean class 1, which is called 10, or class 0, which is called 1; .*labels=\[\"10\"\]",
        ),
        (4, SORTED, r"labels=\[4\]: the classes are 0 to 3: 0 1, 1 10"),
        ("7", SORTED, "no class is called '7'"),
        ("bees", SORTED, r"did you mean bee\? The classes are 0 1, 1 10, 2 2, 3 bee"),
        ("bee", [], "hold no names of classes; give numbers"),
    ],
)
def test_what_is_no_class_or_may_be_two_is_refused(label, names, message):
    with pytest.raises(UserError, match=message):
        class_numbers([label], names, 4)


def test_a_class_that_was_looked_up_is_not_looked_up_again():
    found = class_numbers(
        ["10", "2"], ["1", "10", "2"], 3
    )  # class 1 is called 10, and 1 is the name of class 0
    assert class_numbers(found, ["1", "10", "2"], 3) == found == [1, 2]
