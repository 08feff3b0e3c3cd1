"""The W&B view of a training: a process beside it, whose faults cost the training nothing."""

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest
from harness.event_logs import EventLog
from harness.patience import share_of_core, wait_until
from harness.wandb_server import standing_in

from lediflow.errors import BAD_REQUEST, UserError
from lediflow.tracking.tracker import TrackingConfig, build_tracker
from lediflow.tracking.wandb.record import Target
from lediflow.tracking.wandb.training_view import Follower, follower_command

# the follower's command, with a second instead of ten to leave
HURRIED = """
import sys
from lediflow import sync
from lediflow.tracking.wandb import sync_loop
sync_loop.LEAVE_SECONDS, sync_loop.EVERY_SECONDS = 1.0, 0.1
sync.main()
"""

# a follower whose account is refused while it waits for the end of the training
REFUSED = """
import time
from lediflow import sync
from lediflow.tracking.wandb import client, sync_loop
def refuse(*_, **__):
    time.sleep(0.5)
    raise client.LoginError("W&B refuses the account")
sync_loop.keep_sending = refuse
sync.main()
"""


def config(**options):
    return TrackingConfig(progress=False, wandb=True, **options)


def test_offline_nothing_is_written_while_training_and_the_end_says_how(tmp_path, caplog):
    folder = tmp_path / "run 1"
    tracker = build_tracker(config(), folder, total_images=1)
    tracker.record("train", 1, loss=0.5)
    with caplog.at_level(logging.INFO):
        tracker.close()
    assert f"python -m lediflow.sync '{folder}'" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["events.jsonl"]


def test_an_unknown_mode_and_a_missing_package_are_refused_at_the_start(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"'sometimes'.*offline, online"):
        build_tracker(config(wandb_mode="sometimes"), tmp_path, total_images=1)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'lediflow\[wandb\]'.*tracking.wandb=false"):
        build_tracker(config(), tmp_path, total_images=1)


def test_the_followers_command_says_where_the_run_appears(tmp_path):
    words = follower_command(tmp_path, Target("online", "cells", "team"))
    assert words[1:4] == ["-m", "lediflow.sync", str(tmp_path)]
    assert " ".join(words).endswith("--mode online --project cells --entity team")


@pytest.mark.processes
def test_tracking_imports_neither_wandb_nor_matplotlib():
    code = "import sys, lediflow.tracking.tracker; print({'wandb', 'matplotlib'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.processes
def test_a_follower_that_died_is_named_once_and_recording_goes_on(tmp_path, caplog):
    view = Follower([sys.executable, "-c", ""], tmp_path)
    view.process.wait()
    view.process.returncode = -15
    with caplog.at_level(logging.WARNING):
        view.looked = -1e9
        view.record("train", 1, loss=0.5)
        view.record("train", 2, loss=0.5)
        view.close()
    assert caplog.text.count("python -m lediflow.sync") == 1


@pytest.mark.processes
def test_a_follower_that_is_refused_ends_with_an_error_and_without_aborting(tmp_path):
    EventLog(tmp_path).event("start", 0)
    words = [sys.executable, "-c", REFUSED, str(tmp_path), "--until-eof", "--mode", "online"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.wait(60) == BAD_REQUEST  # its standard input is open
    _, shown = process.communicate()
    assert shown == "error: W&B refuses the account\n"


def wandb_services() -> set[int]:
    """Process ids of the W&B services below this process that still run."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if child.name() == "wandb-core" and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


@pytest.mark.processes
def test_servers_that_do_not_work_delay_neither_training_nor_its_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    others = wandb_services()  # of tests before, in this process
    with ExitStack() as stack:
        servers = {
            behaviour: stack.enter_context(standing_in()) for behaviour in ("refuses", "hangs", "dies")
        }
        trackers = []
        for behaviour, state in servers.items():
            state.behaviour = behaviour
            monkeypatch.setenv("WANDB_BASE_URL", state.url)
            tracker = build_tracker(TrackingConfig(progress=False), tmp_path / behaviour, total_images=1)
            words = follower_command(tmp_path / behaviour, Target("online"))
            tracker.views = [Follower([sys.executable, "-c", HURRIED, *words[3:]], tmp_path / behaviour)]
            trackers.append(tracker)
        began = time.monotonic()
        for place in range(200):
            for tracker in trackers:
                tracker.record("train", place, loss=0.5)
        assert time.monotonic() - began < 2.0 / share_of_core()  # one request would wait for much longer
        assert wait_until(lambda: all(state.bodies for state in servers.values()), 60)
        closing = time.monotonic()
        with ThreadPoolExecutor() as threads:
            [*threads.map(lambda tracker: tracker.close(), trackers)]
        assert time.monotonic() - closing < 12.0 / share_of_core()  # they leave after 1 s
    assert caplog.text.count("W&B did not get everything") == 3
    assert wandb_services() <= others  # none of these runs leaves one
