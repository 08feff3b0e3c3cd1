"""RUN/wandb/sync.json, the id of a run, and the lock of its view."""

import pytest
from harness.event_logs import EventLog

from lediflow.errors import UserError
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.record import (
    BusyError,
    Progress,
    SentResult,
    SyncRecord,
    Target,
    only_writer,
    read_sync_record,
    record_path,
    renewed,
    run_id_of,
    save_record,
)


@pytest.fixture
def folder(tmp_path):
    EventLog(tmp_path / "flow 0 <script>").event("start", 0)
    return RunFolder(tmp_path / "flow 0 <script>")


def test_the_id_is_derived_from_the_folder_and_kept_when_the_folder_moves(folder, tmp_path):
    run_id = run_id_of(folder)
    assert run_id == run_id_of(folder)
    assert run_id.startswith("flow-0-script-") and run_id.replace("-", "").replace("_", "").isalnum()
    save_record(folder, read_sync_record(folder))
    folder.root.rename(tmp_path / "elsewhere")
    assert run_id_of(RunFolder(tmp_path / "elsewhere")) == run_id


def test_another_training_in_the_same_place_has_another_id(folder):
    before = run_id_of(folder)
    folder.events.unlink()
    log = EventLog(folder.root)
    log.minutes = 5
    log.event("start", 0)
    assert run_id_of(folder) != before


def test_a_record_is_read_as_it_was_written(folder):
    progress = Progress("p", None, 7, [[1, 2]], {"model": "c"}, None, ["offline-run-1"])
    results = [SentResult(3, "results/results.json", "ab")]
    record = SyncRecord("a-1", results=results, online=progress, pending=progress)
    save_record(folder, record)
    assert read_sync_record(folder) == record


@pytest.mark.parametrize("content", ['{"run_id": ', '{"run_id": 5}', '{"run_id": "a-1", "more": 1}', "{}"])
def test_a_damaged_record_is_named_with_what_to_do(folder, content):
    record_path(folder).parent.mkdir()
    record_path(folder).write_text(content)
    with pytest.raises(RecordError, match=r"sync\.json.*--new"):
        read_sync_record(folder)


def test_another_copy_has_another_id_and_begins_from_nothing(folder):
    again = renewed(folder, SyncRecord("a-1", online=Progress("p", next_step=7)))
    assert again.run_id != renewed(folder, again).run_id
    assert again.online == again.offline == Progress()


def test_progress_belongs_to_one_project():
    assert Progress("p").is_for(Target(project="p"))
    assert not Progress("p").is_for(Target(project="p", entity="team"))


def test_one_process_writes_at_a_time(folder):
    with only_writer(folder), pytest.raises(BusyError, match="another process"), only_writer(folder):
        pass
    with only_writer(folder):
        pass


def test_a_folder_that_cannot_be_written_is_named(folder):
    record_path(folder).parent.write_text("a file")
    with pytest.raises(UserError, match="wandb"), only_writer(folder):
        pass
