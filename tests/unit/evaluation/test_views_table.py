"""The tables of a grid, on rows whose best and cheapest are known."""

import re

import pytest

from lediflow.evaluation.modes.compare import differing_settings
from lediflow.evaluation.views import setting, table_markdown


def row(run: str, steps: int, value: float, ms: float, **other) -> dict:
    """Its interval reaches 0.1 to both sides."""
    return {
        "run": run,
        "solver": "midpoint",
        "steps": steps,
        "temperature": 1.0,
        "nfe": 2 * steps,
        "mmd_name": "CMMD",
        "mmd": value + 50,  # biased: belongs in no table
        "mmd_unbiased": value,
        "mmd_interval": [value - 0.1, value + 0.1],
        "frechet_name": "FID",
        "frechet": 12.0,
        "kid_name": "KID",
        "kid": None,
        "sample_images": 5000,
        "reference_images": 3000,
        "ms_per_image": ms,
        "cost": {"batch_1": {"total": 4 * ms}, "batch_16": {"total": ms}},
    } | other


BUDGETS, CELLS = 1, 2  # places of the tables after the summary
ROWS = [
    row("ours", 0, 3.0, 1.0),
    row("ours", 1, 1.05, 2.0),  # within the best one's interval
    row("ours", 2, 1.0, 3.0),
    row("gaussian", 4, 2.5, 8.0),
    row("gaussian", 8, 1.5, 16.0),
]


def tables(text: str) -> list[list[list[str]]]:
    """Cells of each table's lines, without the rule under the head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        found.append([lines[0], *lines[2:]])
    return found


def summary(rows=ROWS, baseline: str | None = "gaussian") -> dict[str, dict[str, str]]:
    """By run and by column; both "ms/img" columns by their order."""
    (_, _, _, _, _, _, _), *lines = tables(table_markdown(rows, baseline))[0]
    names = ("run", "best", "at", "best ms", "as good from", "as good ms", "speed-up")
    return {line[0]: dict(zip(names, line, strict=True)) for line in lines}


def test_a_runs_best_row_is_the_one_of_the_lowest_unbiased_metric():
    assert summary()["ours"]["best"] == "1.000 [0.900, 1.100]"
    assert (summary()["ours"]["at"], summary()["ours"]["best ms"]) == ("midpoint 2", "3")


def test_the_cheapest_row_inside_the_best_ones_interval_is_as_good():
    assert (summary()["ours"]["as good from"], summary()["ours"]["as good ms"]) == ("midpoint 1", "2")
    assert (summary()["gaussian"]["as good from"], summary()["gaussian"]["as good ms"]) == (
        "midpoint 8",
        "16",
    )


def test_the_speed_up_is_over_the_baselines_best_row():
    """The baseline reaches 1.5 in 16 ms, ours something better from 2 ms on."""
    assert summary()["ours"]["speed-up"] == "8.00 x"
    assert summary()["gaussian"]["speed-up"] == "1.00 x"


def test_a_run_that_never_reaches_the_baseline_has_no_speed_up():
    assert summary([*ROWS, row("poor", 1, 9.0, 0.1)])["poor"]["speed-up"] == "-"


def test_without_a_baseline_no_speed_up_is_shown():
    assert {line["speed-up"] for line in summary(baseline=None).values()} == {"-"}
    assert "Speed-up" not in table_markdown(ROWS)


def test_the_best_row_of_each_run_is_bold_among_all_rows():
    head, *lines = tables(table_markdown(ROWS))[CELLS]
    bold = [(line[0], line[1]) for line in lines if line[head.index("CMMD")].startswith("**")]
    assert len(lines) == len(ROWS)
    assert bold == [("ours", "midpoint 2"), ("gaussian", "midpoint 8")]


def test_the_tables_state_the_metric_and_the_number_of_images():
    text = table_markdown(ROWS)
    assert text.startswith("CMMD, unbiased, times 1000")
    assert "5,000 generated images a row against 3,000 photographs" in text
    assert "51." not in text  # the biased one


def test_a_missing_metric_is_a_dash():
    head, first, *_ = tables(table_markdown(ROWS))[CELLS]
    measured = dict(zip(head, first, strict=True))
    assert (measured["FID"], measured["KID"], measured["recall"]) == ("12", "-", "-")


def test_settings_name_only_what_is_chosen():
    rows = [
        row("ours", 0, 3.0, 1.0),
        row("ours", 1, 1.0, 1.0, solver="dopri5"),
        row("ours", 2, 2.0, 1.0, temperature=0.8),
    ]
    settings = [line[1] for line in tables(table_markdown(rows))[CELLS][1:]]
    assert settings == ["prior alone", "dopri5", "midpoint 2, temperature 0.8"]


@pytest.mark.parametrize("name", ["ours", "a|b", "||"])
def test_every_line_of_a_table_has_the_columns_of_its_head(name):
    text = table_markdown([*ROWS, row(name + "2", 1, 2.0, 1.0)], baseline="gaussian")
    found = tables(text)
    for table in found:
        assert {len(line) for line in table} == {len(table[0])}
    for table in (found[0], found[CELLS]):
        assert table[-1][0].replace(r"\|", "|") == name + "2"


def test_the_shape_of_each_runs_paths_closes_the_page():
    paths = {
        "ours": {"straightness": 0.0123, "relative": 0.1, "curvature": 0.5},
        "gaussian": {"straightness": 2.0, "relative": 1.0, "curvature": 0.25},
    }
    assert tables(table_markdown(ROWS, "gaussian", paths=paths))[-1] == [
        ["run", "straightness", "relative", "curvature"],
        ["ours", "0.0123", "0.1", "0.5"],
        ["gaussian", "2", "1", "0.25"],
    ]


def test_for_latents_reconstructions_and_the_codecs_floor_are_reported():
    rows = [row("ours", 1, 1.0, 2.0, against_reconstructions={"mmd_unbiased": 0.25})]
    floor = {"mmd_unbiased": 0.9, "mmd_interval": [0.8, 1.0]}
    text = table_markdown(rows, floor=floor)
    assert "its reconstructions of these photographs, is at 0.900 [0.800, 1.000]." in text
    head, line = tables(text)[CELLS]
    assert dict(zip(head, line, strict=True))["to reconstructions"] == "0.25"
    assert "reconstructions" not in table_markdown(ROWS, "gaussian")


def test_the_best_row_is_shown_for_every_doubling_of_evaluations():
    """The rows' evaluations are twice their steps."""
    head, *lines = tables(table_markdown(ROWS, "gaussian"))[BUDGETS]
    assert head == ["evaluations at most", "ours", "gaussian"]
    assert lines == [
        ["1", "**3.000** (prior alone)", "-"],
        ["2", "**1.050** (midpoint 1)", "-"],
        ["4", "**1.000** (midpoint 2)", "-"],
        ["8", "**1.000** (midpoint 2)", "2.500 (midpoint 4)"],
        ["16", "**1.000** (midpoint 2)", "1.500 (midpoint 8)"],
    ]


def of_classes(**sampling) -> dict:
    return row(
        "ours", 2, 1.0, 3.0, record={"images": {"sampling": {"guidance": 1.0, "labels": [], **sampling}}}
    )


@pytest.mark.parametrize(
    ("sampling", "shown"),
    [
        ({}, "midpoint 2"),
        ({"labels": [4, 0]}, "midpoint 2, labels 4 0"),
        ({"labels": [4], "guidance": 2.0}, "midpoint 2, labels 4, guidance 2"),
        ({"labels": [0, 1, 2, 3, 4, 5, 0]}, "midpoint 2, labels 6 classes"),
    ],
)
def test_classes_and_their_guidance_are_named_in_a_rows_setting(sampling, shown):
    assert setting(of_classes(**sampling)) == shown


def test_settings_in_which_two_rows_differ_besides_their_steps_are_named():
    plain, guided = of_classes(), of_classes(labels=[4], guidance=2.0)
    assert differing_settings(plain, guided) == "guidance: 1.0 and 2.0; labels: [] and [4]"
    assert (
        differing_settings(plain, plain)
        == differing_settings(row("a", 1, 1.0, 1.0), row("b", 1, 2.0, 1.0))
        == ""
    )
