"""Every number that small runs of all stages log has an entry in the table of logged values."""

import pytest
from harness.commands import succeed

from lediflow.dashboard.panels import dashboard_of
from lediflow.evaluation.logged import logged_values
from lediflow.evaluation.metrics import METRICS, logged_keys
from lediflow.tracking.event_log import Event, read_events
from lediflow.tracking.metrics import names_in, unknown_names

STAGES = {"auxiliary": "auxiliary", "flow": "flow", "baseline": "flow", "sampler": "latent_sampler"}


@pytest.mark.parametrize("run", STAGES)
def test_every_number_of_a_run_has_an_entry(trained, run):
    events = read_events(getattr(trained, run) / "events.jsonl")
    assert len([name for event in events for name in names_in(event)]) > 20
    assert unknown_names(events, logged_values(STAGES[run])) == []
    assert unknown_names(events, logged_values()) == []


@pytest.fixture(scope="module")
def observed(trained, tmp_path_factory):
    """Events of a run that validates and makes pictures."""
    run = tmp_path_factory.mktemp("observed") / "run"
    command = [word for word in trained.commands["auxiliary"] if not word.startswith("run=")]
    options = (
        "data.held_out_fraction=0.25",
        "train.validation.every_images=32",
        "train.validation.samples=4",
    )
    succeed(*command, *options, f"run={run}", "stage.beta_warmup_images=16", "train.pictures.time_share=1")
    return read_events(run / "events.jsonl")


def test_every_number_of_a_run_that_validates_and_makes_pictures_has_an_entry(observed):
    found = {event["event"] for event in observed}
    assert {"start", "train", "ranks", "validation", "checkpoint", "pictures"} <= found
    assert unknown_names(observed, logged_values("auxiliary")) == []


def test_the_dashboard_of_a_stage_shows_the_pictures_that_it_makes(observed):
    (made, *_) = [event["pictures"] for event in observed if event["event"] == "pictures"]
    shown = [
        number
        for section in dashboard_of("auxiliary").sections
        for panel in section.panels
        if panel.kind == "pictures"
        for number in panel.numbers
    ]
    assert shown == [f"pictures/{name}" for name in made]


def test_every_number_of_an_evaluation_has_an_entry():
    row = dict.fromkeys([*logged_keys(), "ms_per_image", "nfe"], 1.0)
    events: list[Event] = [{"event": "evaluation", "images_seen": 64, "midpoint_2": row}]
    assert unknown_names(events, logged_values()) == []
    assert {logged_values()[f"evaluation/*/{metric.shown_key}"].better for metric in METRICS.values()} == {
        "lower", "higher",
    }  # fmt: skip
