"""The W&B view: the calls that reach wandb, on a fake; and that the package is imported only when it is used."""

import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from lediflow.errors import UserError
from lediflow.tracking.tracker import TrackingConfig, build_tracker
from lediflow.tracking.wandb import WandbTracker


class FakeWandb:
    """A fake of wandb and its run that records the calls."""

    def __init__(self):
        self.started: dict = {}
        self.logged: list[dict] = []
        self.alerts: list[dict] = []
        self.is_finished = False

    def init(self, **arguments):
        self.started = arguments
        return self

    def define_metric(self, *names, **options):
        pass

    def alert(self, **message):
        self.alerts.append(message)

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.is_finished = True


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fake.init))
    return fake


def test_numbers_of_an_event_go_under_its_name_over_the_image_clock(wandb, tmp_path):
    tracker = WandbTracker(tmp_path / "flow-0", {"seed": 0}, project="cells")
    tracker.record("train", 64, loss=0.5, note="warm")
    tracker.close()
    assert wandb.logged == [{"images_seen": 64, "train/loss": 0.5}]
    assert wandb.started["mode"] == "offline"
    assert (wandb.started["project"], wandb.started["name"]) == ("cells", "flow-0")
    assert wandb.started["config"] == {"seed": 0}
    assert wandb.is_finished


def test_each_number_of_a_list_or_dict_has_a_curve_of_its_own(wandb, tmp_path):
    tracker = WandbTracker(tmp_path, {})
    tracker.record(
        "train", 64, loss_by_time=[0.5, None, 0.25], step={"p50": torch.tensor([1.0, 2.0])}, keys=["a"]
    )
    assert wandb.logged == [
        {
            "images_seen": 64,
            "train/loss_by_time/0": 0.5,
            "train/loss_by_time/2": 0.25,
            "train/step/p50/0": 1.0,
            "train/step/p50/1": 2.0,
        }
    ]


@pytest.mark.processes
def test_the_real_package_writes_an_offline_run_into_the_run_folder(tmp_path, monkeypatch):
    package = import_module("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = WandbTracker(tmp_path, {"seed": 0})
    tracker.record("train", 64, loss=0.5)
    tracker.close()
    package.teardown()  # as at the end of a process: wandb's own process writes what it still holds
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/loss" in log.read_bytes()


def test_it_is_a_view_only_if_configured(wandb, tmp_path):
    build_tracker(TrackingConfig(progress=False), tmp_path, total_images=1).close()
    assert wandb.started == {}
    build_tracker(TrackingConfig(progress=False, wandb=True), tmp_path, total_images=1).close()
    assert wandb.started["dir"] == tmp_path


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        WandbTracker(tmp_path, {})


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'sometimes'.*offline, online"):
        WandbTracker(tmp_path, {}, mode="sometimes")


@pytest.mark.processes
def test_tracking_imports_neither_wandb_nor_matplotlib():
    code = "import sys, lediflow.tracking.tracker; print({'wandb', 'matplotlib'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_a_held_out_loss_that_has_turned_is_an_alert(wandb, tmp_path):
    tracker = WandbTracker(tmp_path, {})
    tracker.record("held_out_turned", 64, rise=0.12, message="held-out loss was lowest, ...")
    assert wandb.logged == [{"images_seen": 64, "held_out_turned/rise": 0.12}]
    assert wandb.alerts == [{"title": "held-out loss has turned", "text": "held-out loss was lowest, ..."}]
