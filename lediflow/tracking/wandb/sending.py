"""Synchronises run folders with W&B: once, or again and again while the log grows.

Online, rows are appended to one run at W&B, whose last step says what it has. Offline, one `.wandb` file holds all that
stands: it is written again, whole, when something is new, because a later upload of a longer file replaces the rows of
a shorter one, while `wandb sync` would put a file of additional rows in their place.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lediflow.disk import hash_key, sha256_of
from lediflow.errors import UserError
from lediflow.records import one_line
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import Event, read_events
from lediflow.tracking.wandb.client import WandbRun, check_mode
from lediflow.tracking.wandb.facts import (
    Result,
    exported,
    exported_model,
    find_results,
    hash_of_files,
    read_result,
    result_files,
    run_config,
    used_models,
)
from lediflow.tracking.wandb.record import (
    SentResult,
    SyncRecord,
    Target,
    for_target,
    only_writer,
    read_sync_record,
    record_path,
    renewed,
    save_record,
)
from lediflow.tracking.wandb.rows import plan_rows, summaries

log = logging.getLogger(__name__)

OFFLINE_RUN = "offline-run-*"
QUICK_BYTES = 32 * 2**20  # of models that a training sends before it exits
UNFINISHED = ".unfinished-"  # how the folders begin in which wandb writes


class Sent(NamedTuple):
    """What a synchronisation did."""

    rows: int
    repeated: int = 0  # points that W&B keeps with the values of an attempt that was discarded
    place: str | None = None  # address of the run, or folder of the offline run
    is_new: bool = True  # whether there was anything to write


class Content(NamedTuple):
    """What there is to send."""

    events: list[Event]
    results: list[tuple[SentResult, Result | None]]

    @property
    def measured(self) -> list[Result]:
        """The newest numbers of each file of results."""
        newest = {sent.file: result for sent, result in self.results if result is not None}
        return list(newest.values())


def synchronise(folder: RunFolder, target: Target, *, is_renewed: bool = False) -> Sent:
    """Bring the W&B run of a folder up to date. UserError if there is no log, or if another process does it."""
    check_mode(target.mode)
    require_log(folder)
    with only_writer(folder):
        record = read_sync_record(folder)
        if is_renewed:
            record = renewed(folder, record)
            save_record(folder, record)
        try:
            if target.mode == "offline":
                return write_offline(folder, target, record)
            with OnlineSession.opened(folder, target, record) as session:
                return session.update(is_last=True)
        except (UserError, OSError):
            raise
        except Exception as error:  # wandb's own, and those of its connections
            raise UserError(
                f"W&B failed while {folder.root} was sent ({one_line(error) or type(error).__name__}); the event log "
                "has everything, and the same command sends what is missing"
            ) from error


def require_log(folder: RunFolder) -> None:
    if not folder.events.is_file():
        raise UserError(f"{folder.root} has no events.jsonl; give the run folder of lediflow.train")


def gather(folder: RunFolder, record: SyncRecord) -> tuple[Content, SyncRecord]:
    """What there is to send, and the record with files of results that were not known before."""
    events = read_events(folder.events)
    now = find_results(folder)
    known = {sent.file: sent.sha256 for sent in record.results}
    added = [SentResult(len(events), file, sha) for file, sha in now.items() if known.get(file) != sha]
    record = replace(record, results=[*record.results, *added])
    place = exported(folder).get("images_seen", max((event["images_seen"] for event in events), default=0))
    current = {(file, sha): read_result(folder, file, place) for file, sha in now.items()}
    return Content(events, [(sent, current.get((sent.file, sent.sha256))) for sent in record.results]), record


# --- offline


def write_offline(folder: RunFolder, target: Target, record: SyncRecord) -> Sent:
    """Write the offline run, if anything is new since it was written; its folder takes the place of the last one."""
    content, record = gather(folder, record)
    written = digest(folder, target, record, content)
    before = sorted(record_path(folder).parent.glob(f"{OFFLINE_RUN}-{record.run_id}"))
    if record.written == written and len(before) == 1:
        return Sent(0, place=str(before[0]), is_new=False)
    save_record(folder, record)
    plan = plan_rows(content.events, content.results)
    with own_files(folder) as inside:
        run = WandbRun(
            target,
            record.run_id,
            folder=inside,
            name=folder.root.name,
            config=run_config(folder, content.events),
        )
        try:
            run.send(plan.rows, folder.root)
            run.summarise(summaries(content.events, content.measured))
            send_artifacts(run, folder, {})
            source = run.files
            run.close()
        except BaseException:
            run.drop()
            raise
        for path in before:
            shutil.rmtree(path)
        source.replace(target_folder := record_path(folder).parent / source.name)
    save_record(folder, replace(record, written=written))
    return Sent(len(plan.rows), place=str(target_folder))


def digest(folder: RunFolder, target: Target, record: SyncRecord, content: Content) -> str:
    """Hash of all that an offline run is written from."""
    model = exported_model(folder)
    about = [
        [target.project, target.entity, record.run_id, len(content.events)],
        [[sent.file, sent.sha256] for sent, _ in content.results],
        [[str(path.relative_to(folder.root)), path.stat().st_size] for path in result_files(folder)],
        model.sha256 if model else None,
        sha256_of(folder.config) if folder.config.is_file() else None,
    ]
    return hash_key(json.dumps(about), digits=64)


@contextmanager
def own_files(folder: RunFolder) -> Iterator[Path]:
    """A folder for what wandb writes, removed at the end; those of killed processes are removed first."""
    root = record_path(folder).parent
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=root, ignore_cleanup_errors=True) as inside:
        yield Path(inside)


# --- online


@dataclass
class OnlineSession:
    """A run that is open at a server, and what was sent to it."""

    folder: RunFolder
    record: SyncRecord
    run: WandbRun
    next_step: int
    repeated: int = 0
    finish_seconds: float = 0  # for uploads at the end; 0: no bound

    @classmethod
    @contextmanager
    def opened(
        cls, folder: RunFolder, target: Target, record: SyncRecord, *, finish_seconds: float = 0
    ) -> Iterator[OnlineSession]:
        """Open the run at the server, and finish it at the end of the block, or drop it if that raises."""
        record = for_target(record, target)
        save_record(folder, record)
        config = run_config(folder, read_events(folder.events))
        with own_files(folder) as inside:
            run = WandbRun(
                target,
                record.run_id,
                folder=inside,
                name=folder.root.name,
                config=config,
                finish_seconds=finish_seconds,
            )
            try:
                session = cls(folder, record, run, run.next_step, finish_seconds=finish_seconds)
                yield session
                run.close()
                save_record(folder, session.record)
            except BaseException:
                run.drop()
                raise

    def update(self, *, is_last: bool = False) -> Sent:
        """Send what is new in the run folder; artifacts only in the last update."""
        content, record = gather(self.folder, self.record)
        plan = plan_rows(content.events, content.results, self.next_step, record.skipped)
        record = replace(record, skipped=plan.skipped)
        if record != self.record:
            save_record(self.folder, record)  # before anything is sent that it describes
        self.record = record
        self.run.send(plan.rows, self.folder.root)
        if plan.rows or is_last:
            self.run.summarise(summaries(content.events, content.measured))
        self.next_step = plan.next_step
        self.repeated += plan.repeated
        if is_last:
            self.run.reconfigure(run_config(self.folder, content.events))
            if self.has_time_for_artifacts():
                artifacts = send_artifacts(self.run, self.folder, self.record.artifacts)
                self.record = replace(self.record, artifacts=artifacts)  # recorded once the run has finished
        return Sent(len(plan.rows), self.repeated, self.run.url, is_new=bool(plan.rows))

    def has_time_for_artifacts(self) -> bool:
        """Whether artifacts can be sent before `close` gives up; says how to send them otherwise."""
        models = [*used_models(self.folder), *filter(None, [exported_model(self.folder)])]
        size = sum(path.stat().st_size for model in models for path in model.files)
        if not self.finish_seconds or size <= QUICK_BYTES:
            return True
        log.info("to send the exported model too: python -m lediflow.sync %s --mode online", self.folder.root)
        return False


def send_artifacts(run: WandbRun, folder: RunFolder, known: dict[str, str]) -> dict[str, str]:
    """Send models and results whose hashes are not known yet; returns the hashes of all."""
    found = dict(known)
    model, files = exported_model(folder), result_files(folder)
    for used in used_models(folder):
        if found.get(used.name) != used.sha256:
            run.use_model(used)
            found[used.name] = used.sha256
    if model is not None and found.get("model") != model.sha256:
        run.add_model(model)
        found["model"] = model.sha256
    if files and found.get("results") != (sha256 := hash_of_files(files)):
        run.add_results(f"{read_sync_record(folder).run_id}-results", folder.root / "results", files)
        found["results"] = sha256
    return found


def is_finished(folder: RunFolder) -> bool:
    """Whether the training has ended and exported its weights."""
    facts = exported(folder)
    if facts.get("ended") is None:
        return False
    trained = [event["images_seen"] for event in read_events(folder.events) if event["event"] == "train"]
    return bool(facts.get("trained_images") == max(trained, default=None))
