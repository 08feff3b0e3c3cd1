"""Sending to a stand-in for W&B's server: one run through requeues, crashes, outages and deaths of wandb-core."""

import logging
import threading
from contextlib import suppress

import psutil
import pytest
import wandb
from harness.event_logs import EventLog, export
from harness.patience import wait_until
from harness.wandb_files import offline_runs
from harness.wandb_server import standing_in

from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import standing_events
from lediflow.tracking.wandb import client, sync_loop
from lediflow.tracking.wandb.record import Target, read_sync_record, record_path, run_id_of
from lediflow.tracking.wandb.sending import synchronise

pytestmark = pytest.mark.processes

TARGET = Target("online", "cells")


@pytest.fixture
def server(monkeypatch, tmp_path):
    wandb.teardown()  # it reads its environment once
    with standing_in() as state:
        monkeypatch.setenv("WANDB_BASE_URL", state.url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("HOME", "/dev/null")  # no folder, so nothing can be written there
        yield state
        wandb.teardown()


@pytest.fixture
def log(tmp_path):
    log = EventLog(tmp_path / "flow")
    log.event("start", 0, ranks=1)
    log.train(*range(10, 160, 10))
    return log


def losses(state, folder):
    rows = state.runs[run_id_of(folder)].rows
    return {row["images_seen"]: row["train/loss"] for row in rows if "train/loss" in row}


def test_one_run_gets_only_what_is_new_whatever_was_recorded(server, log, tmp_path):
    folder = RunFolder(tmp_path / "flow")
    assert synchronise(folder, TARGET).rows == 16
    recorded = record_path(folder).read_bytes()
    assert synchronise(folder, TARGET).rows == 0
    log.event("resume", 100, ranks=1)
    log.train(*range(110, 180, 10), scale=50.0)
    log.event("validation", 50, loss=1.0)  # late, at its own place
    sent = synchronise(folder, TARGET)
    assert (sent.rows, sent.repeated) == (4, 5)
    record_path(folder).write_bytes(recorded)  # a kill after sending, before recording
    assert synchronise(folder, TARGET).rows == 0
    (run,) = server.runs.values()
    places = [row["images_seen"] for row in run.rows if "train/loss" in row]
    assert places == sorted(set(places)) == list(range(10, 180, 10))
    assert [row["images_seen"] for row in run.rows if "validation/loss" in row] == [50]
    assert run.summary["train/loss"] == {"min": 1 / 100, "max": 50 / 110, "last": 50 / 170}
    assert (run.summary["images_seen"], run.display_name) == (170, "flow")
    assert "run_facts" in run.config


def test_another_run_from_the_log_alone_has_the_values_that_stand(server, log, tmp_path):
    folder = RunFolder(tmp_path / "flow")
    synchronise(folder, TARGET)
    log.event("resume", 100, ranks=1)
    log.train(*range(110, 180, 10), scale=50.0)
    synchronise(folder, TARGET, is_renewed=True)
    assert len(server.runs) == 2
    standing = {e["images_seen"]: e["loss"] for e in standing_events(log.path) if e["event"] == "train"}
    assert losses(server, folder) == standing


def test_a_server_that_refuses_is_an_error_that_says_what_to_do(server, log, tmp_path, monkeypatch):
    monkeypatch.setitem(client.SETTINGS, "init_timeout", 0.3)
    server.behaviour = "refuses"
    with pytest.raises(UserError, match="the same command sends what is missing"):
        synchronise(RunFolder(tmp_path / "flow"), TARGET)
    server.behaviour = "works"
    assert synchronise(RunFolder(tmp_path / "flow"), TARGET).rows == 16


def test_a_run_is_connected_with_its_parent_by_one_artifact(server, log, tmp_path):
    parent, folder = RunFolder(tmp_path / "aux"), RunFolder(tmp_path / "flow")
    EventLog(parent.root).event("start", 0, ranks=1)
    export(parent, b"auxiliary")
    export(folder, b"flow", parent={"path": str(parent.root), "sha256": parent.weights_hash()})
    synchronise(folder, TARGET)
    assert server.used == [(run_id_of(folder), run_id_of(parent))]
    sent = dict(server.artifacts)
    synchronise(parent, TARGET)
    synchronise(folder, TARGET)
    assert server.artifacts == sent and sent.keys() == {run_id_of(folder), run_id_of(parent)}
    assert server.requests.count("CreateArtifact") == 3


def test_rows_that_were_sent_are_not_kept_in_files_for_an_upload(server, log, tmp_path):
    folder = RunFolder(tmp_path / "flow")
    synchronise(folder, Target("offline", "cells"))
    assert len(offline_runs(folder.root)) == 1
    synchronise(folder, TARGET)
    assert offline_runs(folder.root) == []
    again = synchronise(folder, Target("offline", "cells"))
    assert again.rows == 16 and again.is_online_too
    synchronise(folder, Target("offline", "cells"), is_renewed=True)
    assert len(offline_runs(folder.root)) == 1


def test_a_full_quota_loses_nothing_for_good(server, log, tmp_path):
    server.behaviour = "full"
    folder = RunFolder(tmp_path / "flow")
    synchronise(folder, TARGET)
    assert losses(server, folder) == {}
    server.behaviour = "works"
    assert synchronise(folder, TARGET).rows == 16
    assert list(losses(server, folder)) == list(range(10, 160, 10))


def test_a_finished_run_is_followed_to_its_end(server, log, tmp_path, monkeypatch):
    monkeypatch.setattr(sync_loop, "EVERY_SECONDS", 0.05)
    folder = RunFolder(tmp_path / "flow")
    export(folder, b"flow", images_seen=150, trained_images=150, ended="images")
    sync_loop.follow(folder, TARGET)
    assert list(losses(server, folder)) == list(range(10, 160, 10))


def test_following_survives_the_death_of_wandb_and_misses_nothing(server, log, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sync_loop, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(sync_loop, "FIRST_RETRY_SECONDS", 0.05)
    folder, ended = RunFolder(tmp_path / "flow"), threading.Event()
    others = set(psutil.Process().children(recursive=True))

    def kill_wandb():
        for process in set(psutil.Process().children(recursive=True)) - others:
            with suppress(psutil.NoSuchProcess):  # a helper that has ended meanwhile
                if process.name() == "wandb-core":
                    process.kill()

    def disturb():
        wait_until(lambda: server.runs, 60)
        kill_wandb()
        log.train(*range(160, 200, 10))
        wait_until(lambda: server.requests.count("RunResumeStatus") > 1, 60)
        ended.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    with caplog.at_level(logging.WARNING):
        assert sync_loop.keep_sending(folder, TARGET, ended.wait)
    thread.join()
    assert "W&B failed" in caplog.text
    assert list(losses(server, folder)) == list(range(10, 200, 10))
    assert read_sync_record(folder).online.project == "cells"
