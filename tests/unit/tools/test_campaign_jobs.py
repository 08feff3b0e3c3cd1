"""What a campaign keeps of its commands: the time of every session, and the losses of every run."""

import argparse
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lediflow.tracking.event_log import TURNED, JsonlTracker

TOOLS = Path(__file__).parents[3] / "tools" / "campaign"


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setenv("PYTHONPATH", "")
    found = importlib.import_module("jobs")
    monkeypatch.setattr(found, "results_path", lambda kind, name: tmp_path / f"{kind}_{name}.json")
    monkeypatch.setattr(found, "work_through", lambda *_: [])
    return found


@pytest.fixture
def carry_out(jobs, monkeypatch, tmp_path):
    """Run a campaign without commands that takes some minutes; its results."""

    def carried_out(minutes, at_once, gpus, command):
        certificate = {"command": command, "date": "2026-03-01", "hardware": {"gpus": gpus}}
        monkeypatch.setattr(jobs, "birth_certificate", lambda seed: certificate)
        ticks = iter([100.0, 100.0 + 60 * minutes])
        monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        options = argparse.Namespace(folder=tmp_path, name="x", experiment="demo", seed=0, at_once=at_once)
        jobs.carry_out(options, "widths", {}, dict)
        return json.loads((tmp_path / "widths_x.json").read_text())["results"]

    return carried_out


def test_wall_minutes_and_gpus_of_every_session_of_a_command_are_kept(carry_out):
    first = {"date": "2026-03-01", "at_once": 8, "gpus": ["H200", "H200"], "wall_minutes": 9.5}
    assert carry_out(9.5, 8, ["H200", "H200"], "widths.py --name x")["sessions"] == [first]
    again = carry_out(0.25, 4, [], "widths.py --name x")["sessions"]
    assert again == [first, {"date": "2026-03-01", "at_once": 4, "gpus": [], "wall_minutes": 0.25}]
    other = carry_out(1.0, 4, [], "widths.py --name x --widths 0")["sessions"]
    assert [session["wall_minutes"] for session in other] == [1.0]


def test_the_time_of_a_campaign_is_that_of_all_its_sessions_on_all_their_gpus(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS.parent))
    origin = importlib.import_module("pages.origins").of_experiment
    sessions = [
        {"wall_minutes": 9.5, "at_once": 8, "gpus": ["H200", "H200"]},
        {"wall_minutes": 1.0, "at_once": 4, "gpus": []},
    ]
    said = "10.5 minutes of wall time, 19.0 GPU minutes, up to 8 commands at once."
    assert origin({"sessions": sessions}) == said
    assert origin({}) == ""
    shared = {
        "wall_minutes": 1.0,
        "at_once": 7,
        "gpus": ["H200"],
        "beside": ["scenes64"],
        "stood_seconds": 72.9,
    }
    assert origin({"sessions": [shared]}).endswith(
        "up to 7 commands at once. The minutes and the commands include those of scenes64, on the same GPU. All "
        "commands were paused for 73 seconds, while other measurements had the GPU."
    )


def test_losses_say_at_how_many_images_the_held_out_loss_turned(jobs, tmp_path):
    log = JsonlTracker(tmp_path / "events.jsonl")
    log.record("train", 100, loss=0.1)
    for images, loss in ((100, 0.3), (200, 0.2), (300, 0.4)):
        log.record("validation", images, loss=loss)
    assert jobs.losses(tmp_path)["turned_at"] is None
    log.record(TURNED, 300, best_images_seen=200, best_loss=0.2, rise=0.2, noise=0.01)
    log.record("train", 400, loss=0.05)
    log.close()
    found = jobs.losses(tmp_path)
    assert (found["turned_at"], found["held_out_lowest_at"], found["images_seen"]) == (300, 200, 400)
