"""What the dashboards show: numbers that are logged, for every stage, shipped or added."""

from dataclasses import replace

import pytest

from lediflow.dashboard.panels import COLUMNS, SHOWN_PICTURES, Panel, dashboard_of, dashboards
from lediflow.errors import UserError
from lediflow.evaluation.logged import logged_values
from lediflow.evaluation.metrics import METRICS
from lediflow.stages import STAGES
from lediflow.tracking.metrics import BY_TIME, LOSS, QUALITY, find_value, higher, lower


def panels_of(stage):
    return [panel for section in dashboard_of(stage).sections for panel in section.panels]


def is_logged(number, stage):
    values = logged_values(stage)
    return number in values or find_value(number, values) is not None


@pytest.mark.parametrize("stage", STAGES)
def test_every_panel_shows_numbers_that_are_in_the_table_of_logged_values(stage):
    shown = [number for panel in panels_of(stage) if panel.kind != "pictures" for number in panel.numbers]
    assert [number for number in shown if not is_logged(number, stage)] == []
    assert [number for number, _ in COLUMNS if not is_logged(number, stage)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_titles_and_sections_tell_the_panels_of_a_stage_apart(stage):
    titles = [panel.title for panel in panels_of(stage)]
    assert len(set(titles)) == len(titles)
    names = [section.name for section in dashboard_of(stage).sections]
    assert names[0] == LOSS and names[-1] == "Run" and len(set(names)) == len(names)


def test_what_was_asked_for_is_shown():
    """Losses by time and by sigma, held-out losses, calibration, ranks, quality, pictures."""
    for stage, wanted in {
        "auxiliary": [
            "train/share_at_floor",
            "evaluation/prior/ence",
            "train/loss_by_sigma/*",
            "train/kl_nats",
        ],
        "flow": ["train/loss_by_time/*", "validation/loss_by_sigma/*", "validation/averaged_loss"],
        "latent_sampler": ["train/loss_by_time/*", "train/latent_mean_square"],
    }.items():
        common = ["train/mfu", "train/data_wait_share", "ranks/step_p95/*", "train/gradient_norm"]
        shown = {number for panel in panels_of(stage) for number in panel.numbers}
        assert {*wanted, *common, "train/learning_rate", "train/peak_memory_gib"} <= shown
        pictures = {name for name in SHOWN_PICTURES if f"pictures/{name}" in shown}
        assert pictures == {"samples", "heldout", "interpolation"} - {stage == "latent_sampler" and "heldout"}


def test_an_added_metric_of_images_has_a_panel(monkeypatch):
    added = replace(METRICS["kid"], key="sharpness", name="sharpness", home=None)
    monkeypatch.setitem(METRICS, "sharpness", added)
    (quality,) = [section for section in dashboard_of("flow").sections if section.name == QUALITY]
    assert Panel("sharpness", ("evaluation/*/sharpness",)) in quality.panels


def test_an_added_stage_has_the_common_panels_and_one_for_each_value_that_it_declares(monkeypatch):
    values = {
        "arc_speed": lower(LOSS, "speed along the arc"),
        "turns_by_time/*": higher(BY_TIME, "turns, time bin {}"),
        "odd": lower("Another", "odd value"),
    }
    monkeypatch.setitem(STAGES, "arc", replace(STAGES["flow"], values=values, place=None))
    sections = {section.name: section.panels for section in dashboard_of("arc").sections}
    assert QUALITY not in sections and len(dashboards()) == len(STAGES)
    assert Panel("speed along the arc", ("train/arc_speed", "validation/arc_speed")) in sections[LOSS]
    assert Panel("odd value", ("train/odd", "validation/odd")) in sections[LOSS]
    assert sections[BY_TIME] == [
        Panel("turns, time bin", ("train/turns_by_time/*",)),
        Panel("held-out turns, time bin", ("validation/turns_by_time/*",)),
    ]


def test_an_unknown_stage_is_refused():
    with pytest.raises(UserError, match="stage=bow is unknown; use one of auxiliary"):
        dashboard_of("bow")


def test_a_pattern_is_a_regular_expression_for_one_part_of_a_name():
    panel = Panel("", ("evaluation/*/mmd", "train/loss"))
    assert panel.regex == "^(evaluation/[^/]+/mmd|train/loss)$"
    assert Panel("", ("train/loss",)).regex is None
