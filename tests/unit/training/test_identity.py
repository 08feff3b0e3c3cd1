"""Where two runs differ, in words."""

from lediflow.training.identity import differences

RUN = {
    "seed": 0,
    "stage": {"name": "flow", "cap": 10.0},
    "levels": [{"depth": 1}, {"depth": 4}],
    "parent": None,
}


def test_a_run_does_not_differ_from_itself():
    assert differences(RUN, dict(RUN)) == []


def test_only_what_differs_is_named_with_its_place():
    other = RUN | {"stage": {"name": "flow", "cap": 5.0}, "levels": [{"depth": 1}, {"depth": 2}]}
    assert differences(RUN, other) == ["levels.1.depth: 4, now 2", "stage.cap: 10.0, now 5.0"]


def test_what_is_there_in_one_of_them_only_differs_too():
    assert differences({"seed": 0}, {"seed": 0, "prior": "learned"}) == ["prior: nothing, now learned"]
    assert differences(RUN, RUN | {"levels": [{"depth": 1}]}) == ["levels.1.depth: 4, now nothing"]
