"""Whether a source is still what its shards were made from, where modification times say that it may not be.

A finished set is kept where the pictures' contents are the same, and refused where they are not. A set under
construction continues where what it holds so far is the same, and starts anew where it is not.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from lediflow.data.duplicates import DUPLICATES_NAME, find_duplicates, kept_duplicates
from lediflow.data.shards.build import Progress, ShardBuild
from lediflow.data.shards.index import INDEX_NAME, ShardIndex
from lediflow.data.source_record import (
    DIGEST,
    SourceRecord,
    describe_edits,
    edited_images,
    load_digests,
)
from lediflow.data.sources import Listing, Opened, Source, list_images
from lediflow.data.sources.class_notes import found_classes
from lediflow.data.sources.protocol import Identity
from lediflow.errors import UserError
from lediflow.records import RecordError

log = logging.getLogger(__name__)


class Report(Protocol):
    """Shows the progress of one phase: `report(title, unit=...)(done, in_all)`."""

    def __call__(self, title: str, *, unit: str = "images") -> Progress: ...


def silent(title: str, *, unit: str = "images") -> Progress:
    """No progress is shown."""
    return lambda done, in_all: None


def checked_notes(
    index: ShardIndex, opened: Opened, identity: Identity, workers: int, report: Report
) -> list[str]:
    """What a finished set notes about its source. UserError where pictures were edited since it was made."""
    root = Path(index.root)
    record = SourceRecord.load(root)
    if record is None:
        return _notes_without_record(index, identity)
    if record.modified != identity.modified:
        log.info("files of the source were modified since the shards were made; their contents are compared")
        _compare(root, record, opened, workers, report)
        try:
            replace(record, modified=identity.modified).save(root)
        except UserError as error:  # a set that cannot be written to is compared again next time
            log.info("%s", error)
    return record.notes


def _notes_without_record(index: ShardIndex, identity: Identity) -> list[str]:
    """Notes on a set that an earlier version made, which kept no record of its source."""
    classes = index.contents.classes
    notes = [found_classes(index.table["label"].tolist(), classes) if classes else "no classes"]
    if identity.newest > (Path(index.root) / INDEX_NAME).stat().st_mtime_ns:
        notes.append(
            "the source was modified after these shards were made by an earlier version, which kept no record to "
            f"compare with; if its pictures were edited, delete {index.root} and prepare it anew"
        )
    return notes


def _compare(root: Path, record: SourceRecord, opened: Opened, workers: int, report: Report) -> None:
    """UserError where a finished set's pictures, their names or their classes are not those of the source."""
    build = ShardBuild(root, ShardIndex.load(root).contents)
    try:
        source = opened.ready(build.parts_folder, report("unpack", unit="MiB"))
        listing = list_images(source)
        if SourceRecord.of(listing, record.modified).listing != record.listing:
            raise UserError(_refusal(root, "its list of pictures or classes was edited since"))
        digests = load_digests(root)
        if digests is None:
            raise UserError(_refusal(root, "its files were modified since"))
        numbers = range(len(listing.images))
        if edited := edited_images(source, listing, numbers, digests, workers, report("compare")):
            raise UserError(_refusal(root, describe_edits(edited, len(listing.images))))
    finally:
        build.abandon()


def _refusal(root: Path, change: str) -> str:
    return (
        f"output={root} was made from this source, but {change}; choose another output, or delete that folder to "
        "make it anew"
    )


def continue_or_start_anew(
    build: ShardBuild, source: Source, listing: Listing, record: SourceRecord, workers: int, report: Report
) -> None:
    """Keep the shards that an interrupted run finished, unless pictures were edited since; note the source's state."""
    before = SourceRecord.load(build.parts_folder)
    if before and before.modified != record.modified:
        log.info("files of the source were modified since the interruption; their contents are compared")
        if change := _changed_since(build, source, listing, before, record, workers, report):
            log.warning("the shards that an interrupted run made are made anew: %s", change)
            build.forget()
        (build.parts_folder / DUPLICATES_NAME).unlink(missing_ok=True)
    record.save(build.parts_folder)


def _changed_since(
    build: ShardBuild,
    source: Source,
    listing: Listing,
    before: SourceRecord,
    record: SourceRecord,
    workers: int,
    report: Report,
) -> str:
    """What makes the shards of an interrupted run outdated; empty where nothing does."""
    if before.listing != record.listing:
        return "the list of pictures or classes was edited"
    found = {int(key): digest for part in build.all_recorded() for key, digest in part.digests.items()}
    numbers = sorted(found)
    digests = np.array([bytes.fromhex(found[number]) for number in numbers], DIGEST)
    if edited := edited_images(source, listing, numbers, digests, workers, report("compare")):
        return describe_edits(edited, len(listing.images))
    try:
        known = kept_duplicates(build.parts_folder / DUPLICATES_NAME)
    except RecordError:  # nothing was compared yet
        return ""
    is_same = known == find_duplicates(source, listing.images, workers, report("compare"))
    return "" if is_same else "which pictures equal each other has changed"
