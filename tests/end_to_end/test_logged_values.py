"""Every number that small runs of all stages log has an entry in the table of logged values."""

import pytest
from harness.commands import succeed

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


def test_every_number_of_a_run_that_validates_has_an_entry(trained, tmp_path):
    options = (
        "data.held_out_fraction=0.25",
        "train.validation.every_images=32",
        "train.validation.samples=4",
    )
    command = [word for word in trained.commands["auxiliary"] if not word.startswith("run=")]
    succeed(*command, *options, f"run={tmp_path}/run", "stage.beta_warmup_images=16")
    events = read_events(tmp_path / "run" / "events.jsonl")
    assert {"start", "train", "ranks", "validation", "checkpoint"} <= {event["event"] for event in events}
    assert unknown_names(events, logged_values("auxiliary")) == []


def test_every_number_of_an_evaluation_has_an_entry():
    row = dict.fromkeys([*logged_keys(), "ms_per_image", "nfe"], 1.0)
    events: list[Event] = [{"event": "evaluation", "images_seen": 64, "midpoint_2": row}]
    assert unknown_names(events, logged_values()) == []
    assert {logged_values()[f"evaluation/*/{metric.shown_key}"].better for metric in METRICS.values()} == {
        "lower", "higher",
    }  # fmt: skip
