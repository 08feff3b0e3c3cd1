"""The offline run that `lediflow.sync` writes, read back with wandb's own tool and compared with the event log."""

import errno
import io
import json
import logging
import shutil

import numpy as np
import pytest
from harness.event_logs import export, requeued_twice
from harness.wandb_files import offline_runs, read_wandb_file
from PIL import Image

from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import numbers, standing_events
from lediflow.tracking.wandb import files, sending
from lediflow.tracking.wandb.client import SETTINGS, import_wandb
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import Target, record_path, run_id_of
from lediflow.tracking.wandb.rows import summaries
from lediflow.tracking.wandb.sending import synchronise

pytestmark = pytest.mark.processes

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
PICTURE = "pictures/000000000100/samples.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run after two requeues, with a token in its options, a parent, pictures, late results and an export."""
    root = tmp_path_factory.mktemp("runs")
    parent, run = RunFolder(root / "aux"), RunFolder(root / "flow <script>")
    log = requeued_twice(run.root)
    log.event("train", 210, loss="nan", loss_by_time=["inf", None, "-inf"])
    log.event("evaluation", 50, midpoint_2={"mmd_unbiased": 3.0})
    log.event("pictures", 100, pictures={"samples": {"file": PICTURE, "caption": "step 100"}}, seconds=0.5)
    (run.root / PICTURE).parent.mkdir(parents=True)
    Image.fromarray(PIXELS).save(run.root / PICTURE)
    run.config.write_text(f"data:\n  path: https://me:{TOKEN}@store.example.org/shards\nseed: 3\n")
    export(parent, b"auxiliary")
    export(run, b"flow", parent={"path": str(parent.root), "sha256": parent.weights_hash()})
    (run.root / "results").mkdir()
    rows = [{"solver": "euler", "steps": 1, "temperature": 1.0, "mmd_unbiased": 2.0}]
    (run.root / "results" / "results.json").write_text(json.dumps({"results": {"rows": rows}}))
    return run


@pytest.fixture(scope="module")
def written(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", "/dev/null")  # no folder, so nothing can be written there
        patch.setenv("WANDB_DIR", "/dev/full")
        patch.setenv("WANDB_API_KEY", TOKEN)
        synchronise(folder, Target())
    (path,) = offline_runs(folder.root)
    return read_wandb_file(path)


def test_every_number_that_stands_is_there_once_at_its_place(folder, written):
    found = [
        (row["images_seen"], name, float(value))
        for row in written.rows
        for name, value in row.items()
        if "/" in name and not name.startswith("pictures/samples") and "euler" not in name
    ]
    standing = {}
    for event in standing_events(folder.events):
        values = {
            key: value
            for key, value in event.items()
            if key not in ("time", "event", "images_seen", "pictures")
        }
        for name, value in numbers(event["event"], values):
            standing[event["images_seen"], name] = value
    assert len(found) == len(standing)
    for images_seen, name, value in found:
        assert value == pytest.approx(standing.pop((images_seen, name)), nan_ok=True)


def test_steps_grow_while_late_results_keep_their_places(written):
    steps = [row["_step"] for row in written.rows]
    assert steps == sorted(set(steps))
    late = {name: row["images_seen"] for row in written.rows[-3:] for name in row}
    assert late["evaluation/midpoint_2/mmd_unbiased"] == 50
    assert late["evaluation/euler_1/mmd_unbiased"] == 200


def test_the_summary_is_that_of_the_log(folder, written):
    assert written.summary["train/loss"] == {"min": 1 / 200, "max": 1 / 10, "last": "NaN"}
    whole = summaries(IndexedLog(folder.events), [])
    assert {name: written.summary[name] for name in whole} == whole
    assert written.summary["evaluation/euler_1/mmd_unbiased"]["last"] == 2.0


def test_a_picture_is_the_file_of_the_run_folder(folder, written):
    (row,) = [row for row in written.rows if "pictures/samples.path" in row]
    copied = written.files / row["pictures/samples.path"]
    assert copied.read_bytes() == (folder.root / PICTURE).read_bytes()
    assert np.array_equal(np.asarray(Image.open(copied)), PIXELS)
    assert (row["images_seen"], row["pictures/samples.caption"]) == (100, "step 100")


def test_configuration_and_origin_are_there_without_any_secret(folder, written):
    about = written.config["run_facts"]
    assert written.config["seed"] == 3
    assert (about["commit"], about["slurm_jobs"]) == ("c1", ["17"])
    assert about["parents"]["parent"]["sha256"] == RunFolder(folder.root.parent / "aux").weights_hash()
    for path in record_path(folder).parent.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_the_model_is_an_artifact_and_its_parents_model_an_input(folder, written):
    artifacts = {artifact["name"]: artifact for artifact in written.artifacts}
    used = artifacts[run_id_of(RunFolder(folder.root.parent / "aux"))]
    assert used["use_after_commit"] and used["type"] == "model"
    own = artifacts[run_id_of(folder)]
    assert "use_after_commit" not in own
    assert set(own["aliases"]) == {"latest", "images-200"}
    assert {entry["path"] for entry in own["manifest"]["contents"]} == {"model.safetensors", "config.json"}
    results = artifacts[f"{run_id_of(folder)}-results"]
    assert [entry["path"] for entry in results["manifest"]["contents"]] == ["results.json"]


def add_to(folder, *losses):
    """More events `train`, at 220, 230, ... images."""
    for place, loss in enumerate(losses):
        line = {
            "time": "2026-03-02T00:00:00+00:00",
            "event": "train",
            "images_seen": 220 + 10 * place,
            "loss": loss,
        }
        with folder.events.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


@pytest.fixture
def copy(folder, written, tmp_path):
    """The run folder as after `written`, elsewhere."""
    shutil.copytree(folder.root, tmp_path / folder.root.name)
    return RunFolder(tmp_path / folder.root.name)


def test_again_only_what_is_new_is_written(copy, written):
    assert not synchronise(copy, Target()).is_new
    add_to(copy, 0.5)
    record_path(copy).with_name(".unfinished-killed").mkdir()  # of a killed process
    assert synchronise(copy, Target()).rows == 1
    assert not synchronise(copy, Target()).is_new
    _, path = offline_runs(copy.root)
    news = read_wandb_file(path)
    assert news.run["run_id"] == written.run["run_id"] and news.run["resume"]
    assert [(row["train/loss"], row["_step"]) for row in news.rows] == [(0.5, written.rows[-1]["_step"] + 1)]
    assert news.artifacts == []
    assert news.summary["train/loss"] == {"min": 1 / 200, "max": 0.5, "last": 0.5}
    assert not list(record_path(copy).parent.glob(".unfinished*"))


def test_what_was_written_and_then_discarded_is_written_anew_unless_it_was_uploaded(copy, written):
    with copy.events.open("a") as stream:
        stream.write('{"time": "2026-03-01T09:00:00+00:00", "event": "resume", "images_seen": 100}\n')
    add_to(copy, 0.5)
    (uploaded,) = offline_runs(copy.root)
    mark = uploaded.with_name(f"{uploaded.name}.synced")
    mark.touch()
    assert synchronise(copy, Target())[:2] == (1, 1)  # rows, and repeated ones: the resume
    mark.unlink()
    add_to(copy, 0.25)
    synchronise(copy, Target())
    (path,) = offline_runs(copy.root)
    places = [row["images_seen"] for row in read_wandb_file(path).rows if "train/loss" in row]
    assert places == [*range(10, 110, 10), 220]


def test_a_kill_around_the_last_step_writes_nothing_twice(copy, monkeypatch):
    add_to(copy, 0.5)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sending, "put_in_place", killed)
        synchronise(copy, Target())
    assert len(offline_runs(copy.root)) == 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sending, "offline_place", killed)  # in place, and not recorded as such
        synchronise(copy, Target())
    assert len(offline_runs(copy.root)) == 2
    assert not synchronise(copy, Target()).is_new


def test_pictures_that_cannot_be_read_are_counted_in_one_warning(copy, caplog):
    with copy.events.open("a") as stream:
        for place in (220, 230):
            about = {"samples": {"file": f"pictures/{place}.png"}}
            line = {"time": "2026-03-02T00:00:00+00:00", "event": "pictures", "images_seen": place}
            stream.write(json.dumps(line | {"pictures": about, "seconds": 0.5}) + "\n")
    synchronise(copy, Target())
    (warning,) = [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]
    assert "cannot be read (2)" in warning and "pictures/samples at 220 images" in warning


def full_disk(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_full_disk_is_an_error_and_the_next_sync_writes_everything(copy, monkeypatch):
    add_to(copy, 0.5)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="free some space"):
        patch.setattr(files, "flush", full_disk)
        synchronise(copy, Target())
    assert len(offline_runs(copy.root)) == 1
    assert synchronise(copy, Target()).rows == 1


class FullFile(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_of_wandbs_own_that_cannot_be_written_prints_no_traceback(capsys):
    import_wandb()
    logger, handler = logging.getLogger("wandb.sdk"), logging.StreamHandler(FullFile())
    logger.addHandler(handler)
    try:
        logger.critical("restore done")
    finally:
        logger.removeHandler(handler)
    assert "Logging error" not in capsys.readouterr().err


def test_wandb_knows_every_setting():
    from wandb import Settings

    assert SETTINGS.keys() <= Settings.model_fields.keys()
