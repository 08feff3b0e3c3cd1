"""`python -m lediflow.sync`: where it sends runs, what it refuses and what it says."""

import sys

import pytest
from harness.event_logs import EventLog

from lediflow import sync
from lediflow.errors import BAD_REQUEST, UserError
from lediflow.tracking.wandb.record import Target
from lediflow.tracking.wandb.sending import Sent


@pytest.fixture
def sent(monkeypatch):
    """What reaches `synchronise`, which is replaced."""
    calls = []

    def synchronise(folder, target, *, is_renewed=False):
        calls.append((folder.root.name, target, is_renewed))
        if folder.root.name == "broken":
            raise UserError("broken cannot be sent")
        return Sent(3, place="there")

    monkeypatch.setattr(sync, "synchronise", synchronise)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    return calls


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["lediflow.sync", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        sync.main()
    return ended.value.code


def run_folder(path, tracking=""):
    EventLog(path).event("start", 0)
    if tracking:
        (path / "config.yaml").write_text(f"tracking: {tracking}\n")
    return path


def test_nothing_leaves_the_machine_unless_the_run_or_the_command_says_so(sent, tmp_path, monkeypatch):
    plain = run_folder(tmp_path / "plain")
    online = run_folder(tmp_path / "online", "{wandb_mode: online, wandb_project: cells, wandb_entity: team}")
    assert command(monkeypatch, plain, online) == 0
    assert command(monkeypatch, plain, "--mode", "online", "--project", "other", "--new") == 0
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert command(monkeypatch, online) == 0
    assert sent == [
        ("plain", Target("offline", "lediflow", None), False),
        ("online", Target("online", "cells", "team"), False),
        ("plain", Target("online", "other", None), True),
        ("online", Target("offline", "cells", "team"), False),
    ]


def test_of_several_runs_one_that_fails_leaves_the_others(sent, tmp_path, monkeypatch, capsys):
    runs = [run_folder(tmp_path / name) for name in ("a", "broken", "b")]
    assert command(monkeypatch, *runs) == BAD_REQUEST
    shown = capsys.readouterr()
    assert [name for name, _, _ in sent] == ["a", "broken", "b"]
    assert "error: broken cannot be sent" in shown.err
    assert shown.out.count("wrote 3 rows to there") == 2


def test_a_folder_without_a_log_is_refused(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, tmp_path) == BAD_REQUEST
    assert "no events.jsonl" in capsys.readouterr().err


def test_a_mode_that_does_not_exist_is_refused_with_its_source(sent, tmp_path, monkeypatch, capsys):
    run = run_folder(tmp_path / "a", "{wandb_mode: sometimes}")
    assert command(monkeypatch, run) == BAD_REQUEST
    assert "error: tracking.wandb_mode of the run is 'sometimes'" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert command(monkeypatch, run) == BAD_REQUEST
    assert "error: WANDB_MODE is 'disabled'; choose one of offline, online" in capsys.readouterr().err
    assert command(monkeypatch, run, "--mode", "offline") == 0


@pytest.mark.parametrize("words", [(), ("--follow",)])
def test_without_wandb_the_command_says_how_to_install_it(tmp_path, monkeypatch, capsys, words):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert command(monkeypatch, run_folder(tmp_path / "a"), *words) == BAD_REQUEST
    shown = capsys.readouterr().err
    assert "error: wandb is not installed; `pip install 'lediflow[wandb]'`" in shown


def test_one_run_is_followed_at_a_time(tmp_path, monkeypatch, capsys):
    runs = [run_folder(tmp_path / name) for name in "ab"]
    assert command(monkeypatch, *runs, "--follow") == BAD_REQUEST
    assert "one command for each" in capsys.readouterr().err


def test_the_sentence_says_what_to_do_next():
    assert "wandb sync there," in sync.sentence(Sent(3, place="there"), Target())
    assert "wandb sync 'run 1'," in sync.sentence(Sent(3, place="run 1"), Target())
    assert "nothing new" in sync.sentence(Sent(0, place="there", is_new=False), Target("online"))
    assert "--mode online" in sync.sentence(Sent(3, place="there", is_online_too=True), Target())
    assert "--new" in sync.sentence(Sent(3, 5, "there"), Target("online"))
