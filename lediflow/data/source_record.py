"""What a set of shards records about its source, and whether the source has changed since.

`source.json` and `source.digests.npy` are next to the index. The index identifies the source by what can be found
without opening an image: names and sizes. An image edited in place may keep both, so modification times and a digest
of every image's content are recorded too. Times that differ prove nothing (`touch`, a copy): then contents are
compared, and only different content counts as a change. Times are not part of the index: the same images give the same
index wherever they were copied.

A finished set is kept if the images' contents are the same, and refused if they are not. A set under construction
continues if its contents so far are the same, and starts again if they are not.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Shaped

from lediflow.data.duplicates import (
    DIGEST_BYTES,
    DUPLICATES_NAME,
    digests_of,
    find_duplicates,
    kept_duplicates,
)
from lediflow.data.shards.build import Part, ShardBuild
from lediflow.data.shards.index import INDEX_NAME, ShardIndex, read_array
from lediflow.data.sources import Listing, Opened, Source, list_images
from lediflow.data.sources.labels import found_classes, shown_classes
from lediflow.data.sources.names import counted, kind_of, printable
from lediflow.data.sources.protocol import Identity
from lediflow.data.workers import OnProgress
from lediflow.disk import whole_or_absent, write_json
from lediflow.errors import UserError
from lediflow.records import UNREADABLE, RecordError, read_dataclass, read_record

RECORD_NAME = "source.json"
DIGESTS_NAME = "source.digests.npy"
DIGEST = np.dtype(f"V{DIGEST_BYTES}")
UNKNOWN = bytes(DIGEST_BYTES)  # no digest was recorded

Digests = Shaped[np.ndarray, " images"]  # of dtype DIGEST, by index in the listing
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """Facts about a source, recorded next to the index."""

    modified: str  # hash of the modification times of its files
    listing: str  # hash of the images' names and classes
    notes: list[str]  # sentences: classes, kinds of images, which files were skipped
    passed_over: dict[str, int]  # kind -> files that were not taken as pictures

    @classmethod
    def of(cls, listing: Listing, modified: str) -> "SourceRecord":
        return cls(
            modified=modified,
            listing=_digest_of(listing),
            notes=listing_notes(listing),
            passed_over=dict(listing.passed_over.kinds),
        )

    def save(self, folder: Path) -> None:
        write_json(folder / RECORD_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "SourceRecord | None":
        """The record in a folder; None if it is missing (as in sets of earlier versions) or damaged."""
        path = folder / RECORD_NAME
        try:
            return read_dataclass(cls, read_record(path, "prepare the set again"), str(path))
        except ValueError:  # RecordError is one
            return None


def listing_notes(listing: Listing) -> list[str]:
    """Sentences about a listing: classes, kinds of images, which files were skipped."""
    kinds = Counter(kind_of(image.name) for image in listing.images)
    several = [f"kinds of images: {counted(kinds)}"] if len(kinds) > 1 else []
    left = [f"skipped: {listing.passed_over}"] if listing.passed_over else []
    return [*listing.class_notes, *several, *left]


def duplicates_note(listing: Listing, duplicates: dict[int, int]) -> str:
    """A sentence about duplicates whose class differs from that of the first, which is kept; empty without any."""
    classes, labels = listing.classes, listing.labels
    if not classes:
        return ""
    mismatched = [
        (number, first) for number, first in sorted(duplicates.items()) if labels[number] != labels[first]
    ]
    if not mismatched:
        return ""
    number, first = mismatched[0]
    return (
        f"duplicates of another class than the first picture of their content: {len(mismatched):,}; the first is "
        f"kept: {printable(listing.images[number].name)} ({printable(classes[labels[number]])}) is "
        f"{printable(listing.images[first].name)} ({printable(classes[labels[first]])})"
    )


def emptied_classes_note(listing: Listing, kept: Iterable[int]) -> str:
    """A sentence about classes all of whose images were skipped, given the labels of those kept; empty without any."""
    emptied = sorted({*listing.labels} - {*kept}) if listing.classes else []
    if not emptied:
        return ""
    names = [(listing.classes or [])[label] for label in emptied]
    return (
        f"classes whose images were all skipped: {len(emptied):,} ({shown_classes(names)}); they keep their numbers, "
        "but a model learns nothing about them"
    )


def _digest_of(listing: Listing) -> str:
    digest = hashlib.sha256()
    for image, label in zip(listing.images, listing.labels, strict=True):
        kind = listing.classes[label] if listing.classes else ""
        digest.update(f"{image.name}\0{label}\0{kind}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def collected_digests(parts: Iterable[Part], images: int, duplicates: dict[int, int]) -> Digests:
    """Digest of every image from the records of the shards; UNKNOWN for shards of earlier versions."""
    digests = np.full(images, UNKNOWN, DIGEST)
    for part in parts:
        for key, digest in part.digests.items():
            digests[int(key)] = bytes.fromhex(digest)
    for number, first in duplicates.items():
        digests[number] = digests[first]
    return digests


def save_digests(digests: Digests, folder: Path) -> None:
    """Write the digests next to the record."""
    with whole_or_absent(folder / DIGESTS_NAME) as stream:
        np.save(stream, digests)


def load_digests(folder: Path) -> Digests | None:
    """The digests of a finished set; None if they are missing, damaged or incomplete."""
    try:
        found = read_array(BytesIO((folder / DIGESTS_NAME).read_bytes()))
    except (OSError, *UNREADABLE):
        return None
    return None if found.dtype != DIGEST or (found == np.array(UNKNOWN, DIGEST)).any() else found


def edited_images(
    source: Source,
    listing: Listing,
    numbers: Sequence[int],
    digests: Digests,
    workers: int,
    progress: OnProgress | None,
) -> list[str]:
    """Names of those images, of `numbers`, whose content differs from their digest."""
    images = [listing.images[number] for number in numbers]
    changed = np.flatnonzero(digests_of(source, images, workers, progress) != digests)
    return [images[place].name for place in changed.tolist()]


def describe_edits(names: Sequence[str], images: int) -> str:
    """The edits for a message, such as `2 of the 50 pictures were edited since, the first is a.png`."""
    were = "was" if len(names) == 1 else "were"
    return (
        f"{len(names):,} of the {images:,} pictures {were} edited since, the first is {printable(names[0])}"
    )


class PhaseReport(Protocol):
    """Starts the progress display of a phase: `report(title, unit=...)(done, total)`."""

    def __call__(self, title: str, *, unit: str = "images") -> OnProgress: ...


def silent(title: str, *, unit: str = "images") -> OnProgress:
    """A Report that shows nothing."""
    return lambda done, total: None


def checked_notes(
    index: ShardIndex, opened: Opened, identity: Identity, workers: int, report: PhaseReport
) -> list[str]:
    """The notes of a finished set about its source. UserError if pictures were edited since it was made."""
    root = Path(index.root)
    record = SourceRecord.load(root)
    if record is None:
        return _notes_without_record(index, identity)
    if record.modified != identity.modified:
        log.info("files of the source were modified since the shards were made; their contents are compared")
        _compare(root, record, opened, workers, report)
        try:
            replace(record, modified=identity.modified).save(root)
        except UserError as error:  # a read-only set is compared again next time
            log.info("%s", error)
    return record.notes


def _notes_without_record(index: ShardIndex, identity: Identity) -> list[str]:
    """Notes on a set that an earlier version made, without a record of its source."""
    classes = index.contents.classes
    notes = [found_classes(index.table["label"].tolist(), classes) if classes else "no classes"]
    if identity.newest > (Path(index.root) / INDEX_NAME).stat().st_mtime_ns:
        notes.append(
            "the source was modified after these shards were made by an earlier version, which kept no record to "
            f"compare with; if its pictures were edited, delete {index.root} and prepare it again"
        )
    return notes


def _compare(root: Path, record: SourceRecord, opened: Opened, workers: int, report: PhaseReport) -> None:
    """UserError if a finished set's pictures, their names or their classes differ from those of the source."""
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
        "make it again"
    )


def continue_or_start_again(
    build: ShardBuild,
    source: Source,
    listing: Listing,
    record: SourceRecord,
    workers: int,
    report: PhaseReport,
) -> None:
    """Keep the shards of an interrupted run unless pictures were edited since, and record the source's state."""
    before = SourceRecord.load(build.parts_folder)
    if before and before.modified != record.modified:
        log.info("files of the source were modified since the interruption; their contents are compared")
        if change := _changed_since(build, source, listing, before, record, workers, report):
            log.warning("the shards of an interrupted run are made again: %s", change)
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
    report: PhaseReport,
) -> str:
    """Why the shards of an interrupted run are outdated; empty if they are not."""
    if before.listing != record.listing:
        return "the list of pictures or classes was edited"
    found = {int(key): digest for part in build.all_recorded() for key, digest in part.digests.items()}
    numbers = sorted(found)
    digests = np.array([bytes.fromhex(found[number]) for number in numbers], DIGEST)
    if edited := edited_images(source, listing, numbers, digests, workers, report("compare")):
        return describe_edits(edited, len(listing.images))
    try:
        known = kept_duplicates(build.parts_folder / DUPLICATES_NAME)
    except RecordError:  # duplicates were not searched for yet
        return ""
    is_same = known == find_duplicates(source, listing.images, workers, report("compare"))
    return "" if is_same else "which pictures equal each other has changed"
