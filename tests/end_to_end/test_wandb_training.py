"""A training shown at a stand-in for W&B: one run, through the end of every process and a requeue."""

import signal
import sys
from contextlib import suppress

import psutil
import pytest
import wandb
from harness.commands import invoke
from harness.processes import Started
from harness.wandb_server import standing_in

from lediflow.engine.stop import StopReason
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import numbers, read_events, standing_events
from lediflow.tracking.wandb.record import Target, run_id_of
from lediflow.tracking.wandb.sending import synchronise

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(monkeypatch):
    wandb.teardown()  # it reads its environment once
    with standing_in() as state:
        monkeypatch.setenv("WANDB_BASE_URL", state.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield state
        wandb.teardown()


def terminate_all(started):
    """SIGTERM to a process and to everything that it started, as SLURM sends it to all processes of a step."""
    for process in [*psutil.Process(started.process.pid).children(recursive=True), started.process]:
        with suppress(psutil.NoSuchProcess):  # a helper that has ended meanwhile
            process.send_signal(signal.SIGTERM)


def test_a_run_is_one_through_requeues_and_misses_nothing(server, trained, tmp_path):
    folder = RunFolder(tmp_path / "run")
    words = [
        *[word for word in trained.commands["auxiliary"][1:-1] if not word.startswith("train.images")],
        f"run={folder.root}", "train.images=1000000", "train.log_every_images=64", "engine.compile=false",
        "tracking=wandb", "tracking.wandb_mode=online", "tracking.progress=false",
    ]  # fmt: skip
    first = Started([sys.executable, "-m", "lediflow.train", *words])
    first.wait_until(lambda: bool(server.runs))
    terminate_all(first)
    ended = first.wait()
    assert ended.status == StopReason.SIGNAL.exit_status, ended.output
    assert "Traceback" not in ended.output

    folder.stop.touch()
    second = invoke("train", *words)
    assert second.status == StopReason.STOP_FILE.exit_status, second.err

    missing = synchronise(folder, Target("online")).rows
    assert [*server.runs] == [run_id_of(folder)]
    rows = server.runs[run_id_of(folder)].rows
    found = [(row["images_seen"], name) for row in rows for name in row if "/" in name]
    assert len(found) == len(set(found))
    assert {*found} == {*standing_numbers(folder)}
    assert missing == 0, "the second start ended orderly, so its follower sent everything"
    jobs = server.runs[run_id_of(folder)].config["run_facts"]["value"]["attempts"]
    assert len(jobs) == len(
        [event for event in read_events(folder.events) if event["event"] in ("start", "resume")]
    )
    assert not [body for body in server.bodies if KEY.encode() in body]


def standing_numbers(folder):
    for event in standing_events(folder.events):
        values = {
            key: value
            for key, value in event.items()
            if key not in ("time", "event", "images_seen", "pictures")
        }
        for name, _ in numbers(event["event"], values):
            yield event["images_seen"], name
