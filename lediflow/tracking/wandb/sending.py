"""Synchronises run folders with W&B: once, or again and again while the log grows.

Online, rows are appended to one run at W&B, whose last step says what it has. Offline, each file of a run has what was
new when it was written, and the record says what that was. If nothing was uploaded yet and a crash has made rows
outdated, the files are written anew, whole, so that they are exactly what stands.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.records import one_line
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.artifacts import artifacts_of, bytes_of_models, send_artifacts
from lediflow.tracking.wandb.client import WandbRun
from lediflow.tracking.wandb.facts import (
    EVALUATION,
    Result,
    exported,
    find_results,
    read_result,
    run_config,
)
from lediflow.tracking.wandb.files import (
    check_space,
    free_name,
    is_in_place,
    own_files,
    put_in_place,
    remove_other_runs,
    was_uploaded,
)
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import (
    Progress,
    SentResult,
    SyncRecord,
    Target,
    only_writer,
    read_sync_record,
    record_path,
    renewed,
    save_record,
)
from lediflow.tracking.wandb.rows import Plan, numbers_of, plan_rows, rows_of, summaries

log = logging.getLogger(__name__)

SUMMARY_SHARE = 0.02  # of the time that may go into the summary, which is of the whole log, while following
QUICK_BYTES = 32 * 2**20  # of models that a training sends before it exits


class Sent(NamedTuple):
    """What a synchronisation did."""

    rows: int
    repeated: int = 0  # points that W&B keeps with the values of an attempt that was discarded
    place: str | None = None  # address of the run, or folder of the newest offline run
    is_new: bool = True  # whether there was anything to write
    is_online_too: bool = False  # whether a server has rows that offline runs hold


class Content(NamedTuple):
    """What there is to send."""

    log: IndexedLog
    results: list[tuple[SentResult, Result | None]]

    @property
    def measured(self) -> list[Result]:
        """The newest numbers of each file of results."""
        newest = {sent.file: result for sent, result in self.results if result is not None}
        return list(newest.values())


def synchronise(folder: RunFolder, target: Target, *, is_renewed: bool = False) -> Sent:
    """Bring the W&B run of a folder up to date. UserError if there is no log, or if another process does it."""
    require_log(folder)
    with only_writer(folder):
        if is_renewed:
            begin_again(folder)
        try:
            return synchronise_once(folder, target)
        except (UserError, OSError):
            raise
        except Exception as error:  # wandb's own, and those of its connections
            raise UserError(
                f"W&B failed while {folder.root} was sent ({one_line(error) or type(error).__name__}); the event log "
                "has everything, and the same command sends what is missing"
            ) from error


def begin_again(folder: RunFolder) -> None:
    """Make the record that of another W&B run; offline runs that were not uploaded are removed."""
    record = read_sync_record(folder)
    save_record(folder, renewed(folder, record))
    remove_other_runs(folder, replace(record, offline=Progress()))


def synchronise_once(folder: RunFolder, target: Target) -> Sent:
    """As `synchronise`, for the process that holds the lock; raises wandb's exceptions too."""
    log_index = IndexedLog(folder.events)
    record = settled_record(folder, target, log_index)
    if target.mode == "offline" and not has_news(folder, record, log_index):
        return Sent(0, place=offline_place(folder, record.offline), is_new=False)
    with Session.opened(folder, target, record, log_index) as session:
        sent = session.update(is_last=True)
    is_both = target.mode == "offline" and record.online.is_for(target) and record.online.next_step > 0
    return sent._replace(place=session.place, is_online_too=is_both)


def require_log(folder: RunFolder) -> None:
    if not folder.events.is_file():
        raise UserError(f"{folder.root} has no events.jsonl; give the run folder of lediflow.train")


def gather(folder: RunFolder, record: SyncRecord, log_index: IndexedLog) -> tuple[Content, SyncRecord]:
    """What there is to send, and the record with files of results that were not known before."""
    log_index.refresh()
    now = find_results(folder)
    known = {sent.file: sent.sha256 for sent in record.results}
    added = [SentResult(len(log_index), file, sha) for file, sha in now.items() if known.get(file) != sha]
    record = replace(record, results=[*record.results, *added])
    place = exported(folder).get("images_seen", max(log_index.places, default=0))
    logged = {name for event in log_index.at(EVALUATION, place) for name, _ in numbers_of(event)}
    current = {(file, sha): read_result(folder, file, place, logged) for file, sha in now.items()}
    results = [(sent, current.get((sent.file, sent.sha256))) for sent in record.results]
    return Content(log_index, results), record


def settled_record(folder: RunFolder, target: Target, log_index: IndexedLog) -> SyncRecord:
    """The record as it counts for a target: of offline runs, what lies in its place and is not outdated."""
    record = read_sync_record(folder)
    if record.pending is not None:
        is_done = is_in_place(folder, record.pending.folders[-1])
        record = replace(record, offline=record.pending if is_done else record.offline, pending=None)
    fresh = Progress(target.project, target.entity)
    if target.mode == "online":
        return record if record.online.is_for(target) else replace(record, online=fresh)
    is_outdated = offline_plan(folder, record, log_index).outdated > 0
    if not record.offline.is_for(target) or (is_outdated and not was_uploaded(folder, record.offline)):
        record = replace(record, offline=fresh)
        save_record(folder, record)
    remove_other_runs(folder, record)  # also those of a process that was killed here
    return record


def offline_plan(folder: RunFolder, record: SyncRecord, log_index: IndexedLog) -> Plan:
    """What the next offline run would hold."""
    content, _ = gather(folder, record, log_index)
    return plan_rows(content.log, content.results, record.offline.next_step, record.offline.skipped)


def has_news(folder: RunFolder, record: SyncRecord, log_index: IndexedLog) -> bool:
    """Whether anything is not in the offline runs."""
    progress = record.offline
    rows = rows_of(log_index, offline_plan(folder, record, log_index))
    is_known = all(progress.artifacts.get(name) == sha256 for name, sha256, _ in artifacts_of(folder))
    is_complete = is_known and progress.config == config_hash(folder) and bool(progress.folders)
    return not is_complete or next(rows, None) is not None


def offline_place(folder: RunFolder, progress: Progress) -> str | None:
    return str(record_path(folder).with_name(progress.folders[-1])) if progress.folders else None


def config_hash(folder: RunFolder) -> str | None:
    return sha256_of(folder.config) if folder.config.is_file() else None


@dataclass
class Session:
    """A W&B run that is open, at a server or as a file, and what was sent to it."""

    folder: RunFolder
    target: Target
    record: SyncRecord
    run: WandbRun
    log_index: IndexedLog
    next_step: int
    finish_seconds: float = 0  # for uploads at the end; 0: no bound
    repeated: int = 0
    place: str | None = None
    next_summary: float = 0.0  # when the summary is worth its time again

    @classmethod
    @contextmanager
    def opened(
        cls,
        folder: RunFolder,
        target: Target,
        record: SyncRecord,
        log_index: IndexedLog,
        *,
        finish_seconds: float = 0,
    ) -> Iterator[Session]:
        """Open the run, and finish it at the end of the block, or drop it if that raises."""
        save_record(folder, record)
        config = run_config(folder, log_index)
        with own_files(folder) as inside:
            run = WandbRun(
                target,
                record.run_id,
                folder=inside,
                name=folder.root.name,
                config=config,
                finish_seconds=finish_seconds,
            )
            next_step = run.next_step if target.mode == "online" else record.offline.next_step
            session = cls(folder, target, record, run, log_index, next_step, finish_seconds, place=run.url)
            try:
                yield session
                session.finish()
            except BaseException:
                run.drop()
                raise

    @property
    def progress(self) -> Progress:
        return self.record.online if self.target.mode == "online" else self.record.offline

    def note(self, **changes: Any) -> None:
        """Change the progress in the record, which `finish` saves."""
        progress = replace(self.progress, **changes)
        if self.target.mode == "online":
            self.record = replace(self.record, online=progress)
        else:
            self.record = replace(self.record, offline=progress)

    def update(self, *, is_last: bool = False) -> Sent:
        """Send what is new in the run folder; artifacts only in the last update."""
        content, self.record = gather(self.folder, self.record, self.log_index)
        plan = plan_rows(content.log, content.results, self.next_step, self.progress.skipped)
        self.note(skipped=plan.skipped, next_step=plan.next_step)
        if self.target.mode == "online":
            save_record(self.folder, self.record)  # before anything is sent that it describes
        count = self.run.send(rows_of(content.log, plan), self.folder.root)
        if is_last or (count and time.monotonic() >= self.next_summary):
            began = time.monotonic()
            self.run.summarise(summaries(content.log, content.measured))
            self.next_summary = began + (time.monotonic() - began) / SUMMARY_SHARE
        self.next_step = plan.next_step
        self.repeated += plan.repeated
        if is_last:
            self.run.reconfigure(run_config(self.folder, content.log))
            if self.has_time_for_artifacts():
                self.note(artifacts=send_artifacts(self.run, self.folder, self.progress.artifacts))
        return Sent(count, self.repeated, self.place, is_new=bool(count))

    def finish(self) -> None:
        """Finish the run, put its files in place, and save the record."""
        written = self.run.files
        self.run.close()
        if self.target.mode == "offline":
            check_space(written)
            name = free_name(self.folder, written)
            self.note(folders=[*self.progress.folders, name], config=config_hash(self.folder))
            before = read_sync_record(self.folder)
            pending = replace(before, results=self.record.results, pending=self.progress)
            save_record(self.folder, pending)
            put_in_place(self.folder, written, name)
            self.place = offline_place(self.folder, self.progress)
        elif self.record.offline.is_for(self.target) and not was_uploaded(self.folder, self.record.offline):
            # W&B has these rows now, and would get them twice
            self.record = replace(self.record, offline=Progress())
        save_record(self.folder, self.record)
        remove_other_runs(self.folder, self.record)

    def has_time_for_artifacts(self) -> bool:
        """Whether artifacts can be sent before `finish` gives up; says how to send them otherwise."""
        if not self.finish_seconds or bytes_of_models(self.folder) <= QUICK_BYTES:
            return True
        path = shlex.quote(str(self.folder.root))
        log.info("to send the exported model too: python -m lediflow.sync %s --mode online", path)
        return False


def is_finished(folder: RunFolder) -> bool:
    """Whether the training has ended and exported its weights."""
    facts = exported(folder)
    if facts.get("ended") is None:
        return False
    trained = [event["images_seen"] for event in IndexedLog(folder.events).named("train")]
    return bool(facts.get("trained_images") == max(trained, default=None))
