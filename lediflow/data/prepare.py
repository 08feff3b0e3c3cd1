"""Photographs -> image shards.

Images are distributed to shards in a fixed shuffled order, so that a few shards hold a mix of all classes. Which
images a shard holds is known before any of them is opened: each shard can be made independently, processes share the
work, and an interrupted run continues. A sample's key is its index in the source's sorted listing, so a photograph has
the same key at every size.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lediflow.data.duplicates import DUPLICATES_NAME, content_digest, known_duplicates, unreadable_digest
from lediflow.data.photograph import (
    CHANNELS,
    FORMATS,
    PIXEL_RULE,
    centre_square,
    decoded_photograph,
    picture_bytes,
)
from lediflow.data.pixels import UnusableImageError
from lediflow.data.shards.build import Part, ShardBuild, write_part
from lediflow.data.shards.index import INDEX_NAME, TABLE_NAME, Contents, ShardIndex
from lediflow.data.shards.writer import Sample
from lediflow.data.source_record import (
    PhaseReport,
    SourceRecord,
    checked_notes,
    collected_digests,
    continue_or_start_again,
    duplicates_note,
    emptied_classes_note,
    save_digests,
    silent,
)
from lediflow.data.sources import Entry, Listing, Opened, Source, SourceError, list_images, open_source
from lediflow.data.sources.archives import TarSource
from lediflow.data.sources.opening import Archives, reading_explained
from lediflow.data.sources.protocol import Identity
from lediflow.data.workers import available_workers, in_processes, stop_if_asked
from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges
from lediflow.records import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """One shard to make; pickled to a worker process."""

    root: Path  # folder of the shards
    contents: Contents
    source: Source
    number: int
    keys: list[int]
    images: list[Entry]
    labels: list[int]
    duplicate_of: dict[int, str]  # key of a repeated image -> name of the first image with the same bytes

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(kw_only=True)
class PrepareConfig:
    """Which photographs become which shards."""

    source: str  # folder (nested folders are classes), .tar, .tar.gz, .zip, .parquet, LMDB, list in a .csv
    output: str  # folder for the shards; a finished set is reused, an interrupted one continued
    # side of the square pictures; smaller photographs are rejected, never enlarged
    size: int = bounded(64, at_least=1)
    mode: str = "rgb"  # "grey" stores one channel
    format: str = "png"  # "webp" is also lossless, smaller, and slower to read; "jpg" loses detail
    # images per tar: larger means fewer files, and more work to repeat after an interruption
    shard_samples: int = bounded(1024, at_least=1)
    # processes that read and decode; 0: one per CPU core of this job
    workers: int = bounded(0, at_least=0)


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`."""

    index: ShardIndex
    rejected: dict[str, int]  # reason -> number of images
    is_reused: bool  # the set was already finished
    # sentences: how many classes there are or why there are none, kinds of images, which files were skipped
    notes: list[str]


def prepare(config: PrepareConfig, report: PhaseReport | None = None) -> Prepared:
    """Make the shards that are missing. UserError if the output holds a set of another source or other options."""
    _check(config)
    report = report or silent
    opened = open_source(Path(config.source))
    name_classes(opened)
    with reading_explained(Path(config.source)):
        identity = opened.identity()
    build = ShardBuild(Path(config.output), _contents(config, identity))
    workers = available_workers(config.workers)
    if index := build.finished():
        notes = checked_notes(index, opened, identity, workers, report)
        return Prepared(index, build.rejections(), is_reused=True, notes=notes)
    build.claim()
    try:
        source, listing = _listed(config, build, opened, report)
        record = SourceRecord.of(listing, identity.modified)
        continue_or_start_again(build, source, listing, record, workers, report)
        duplicates = known_duplicates(
            build.parts_folder / DUPLICATES_NAME, source, listing.images, workers, report("compare")
        )
    except SourceError:
        if not any(build.root.glob("*.tar")):
            build.abandon()  # leave the folder free for the corrected command
        raise
    if listing.classes is None:
        log.info("%s", listing.class_notes[0])
    tasks = _tasks(config, build, source, listing, duplicates)
    parts = build.complete(tasks, lambda missing: _make_parts(config, missing), report("prepare"))
    if not any(len(part.rows) for part in parts):
        build.abandon()
        raise UserError(_nothing_usable(config, parts))
    labels = np.concatenate([part.rows["label"] for part in parts])
    more = (duplicates_note(listing, duplicates), emptied_classes_note(listing, labels.tolist()))
    record.notes.extend(note for note in more if note)
    record.save(build.root)
    save_digests(collected_digests(parts, len(listing.images), duplicates), build.root)
    index = build.finish(parts)
    return Prepared(index, build.rejections(), is_reused=False, notes=record.notes)


def name_classes(opened: Opened) -> None:
    """Give tars of sets that were prepared before the names of their classes: labels in the tars are numbers."""
    tars = opened.members.values() if isinstance(opened, Archives) else [opened]
    sets: dict[Path, ShardIndex | None] = {}
    for tar in tars:
        if not isinstance(tar, TarSource):
            continue
        folder = tar.path.parent
        if folder not in sets:
            sets[folder] = prepared_set(folder)
        index = sets[folder]
        if index and tar.path.name in index.file_sizes:
            tar.class_names = index.contents.classes


def prepared_set(folder: Path) -> ShardIndex | None:
    """The set that `prepare` made in a folder; None if there is none. RecordError if its index is lost or damaged."""
    path, table = folder / INDEX_NAME, folder / TABLE_NAME
    if not path.exists() and not table.exists():
        return None
    found = read_json(
        path,
        f"copy the folder again; if the tars next to it are not a set of lediflow.prepare, move {INDEX_NAME} and "
        f"{TABLE_NAME} elsewhere",
    )
    if not isinstance(found, dict) or "schema_version" not in found:
        return None  # no index, or that of another program
    index = ShardIndex.load(folder)
    return index if "tars" not in index.contents.made_from else None  # else tars of another program, indexed


def _check(config: PrepareConfig) -> None:
    for name, value, known in (("mode", config.mode, CHANNELS), ("format", config.format, FORMATS)):
        if value not in known:
            raise UserError(f"{name}={value} is not known; choose one of {', '.join(known)}")
    check_ranges(config)
    if (config.mode, config.format) == ("grey", "webp"):
        raise UserError("format=webp has no grey pictures; choose format=png, or mode=rgb")


def _contents(config: PrepareConfig, identity: Identity) -> Contents:
    """What the samples have in common. Classes are added when the source has been listed."""
    return Contents(
        kind="images",
        payload=config.format,
        shape=[CHANNELS[config.mode], config.size, config.size],
        dtype="uint8",
        image_size=config.size,
        mode=config.mode,
        made_from={
            "source": Path(config.source).resolve().name,
            **identity.record,
            "size": config.size,
            "mode": config.mode,
            "format": config.format,
            "shard_samples": config.shard_samples,
            "pixels": PIXEL_RULE,
        },
    )


def _listed(
    config: PrepareConfig, build: ShardBuild, opened: Opened, report: PhaseReport
) -> tuple[Source, Listing]:
    source = opened.ready(build.parts_folder, report("unpack", unit="MiB"))
    with reading_explained(Path(config.source)):
        listing = list_images(source)
    build.contents = replace(build.contents, classes=listing.classes)
    return source, listing


def _tasks(
    config: PrepareConfig, build: ShardBuild, source: Source, listing: Listing, duplicates: dict[int, int]
) -> list[ShardTask]:
    order = _shuffled(len(listing.images))
    groups = [
        order[start : start + config.shard_samples] for start in range(0, len(order), config.shard_samples)
    ]
    return [_task(build, source, number, group, listing, duplicates) for number, group in enumerate(groups)]


def _shuffled(images: int) -> list[int]:
    """A fixed permutation of 0 ... images - 1."""
    bits = np.random.Philox(key=0).random_raw(images)
    return np.argsort(bits, kind="stable").tolist()


def _task(
    build: ShardBuild,
    source: Source,
    number: int,
    keys: list[int],
    listing: Listing,
    duplicates: dict[int, int],
) -> ShardTask:
    return ShardTask(
        root=build.root,
        contents=build.contents,
        source=source,
        number=number,
        keys=keys,
        images=[listing.images[key] for key in keys],
        labels=[listing.labels[key] for key in keys],
        duplicate_of={key: listing.images[duplicates[key]].name for key in keys if key in duplicates},
    )


def _make_parts(config: PrepareConfig, tasks: list[ShardTask]) -> Iterator[Part]:
    return in_processes(make_part, tasks, available_workers(config.workers))


def make_part(task: ShardTask) -> Part:
    """Make one shard, and record what was rejected and the digest of every file."""
    rejected: list[dict[str, Any]] = []
    digests: dict[str, str] = {}
    samples = _usable(task, rejected, digests)
    part = write_part(task.root, task.contents, task.number, samples, handled=len(task))
    part.rejected, part.digests = rejected, digests
    return part


def _usable(task: ShardTask, rejected: list[dict[str, Any]], digests: dict[str, str]) -> Iterator[Sample]:
    """Yield the task's samples. Unusable images are added to `rejected`, digests of the contents to `digests`."""
    for key, image, label in zip(task.keys, task.images, task.labels, strict=True):
        stop_if_asked()
        try:
            if first := task.duplicate_of.get(key):
                raise UnusableImageError(f"duplicate: of {first}")
            digests[str(key)] = unreadable_digest(image).hex()
            content = _read(task.source, image)
            digests[str(key)] = content_digest(content).hex()
            yield _sample(task, key, image, label, content)
        except UnusableImageError as reason:
            rejected.append({"key": key, "image": image.name, "reason": str(reason)})


def _sample(task: ShardTask, key: int, image: Entry, label: int, content: bytes) -> Sample:
    size = task.contents.image_size
    photograph = decoded_photograph(content, size)
    picture = centre_square(photograph, size=size, mode=task.contents.mode)
    metadata: dict[str, str | int | None] = {
        "source": image.name,
        "size": size,
        "width": photograph.width,
        "height": photograph.height,
        "label": label if task.contents.classes else None,
    }
    if task.contents.classes:
        metadata["class"] = task.contents.classes[label]
    if photograph.has_more:
        metadata["frames"] = "the first of several"
    return Sample(key, label, picture_bytes(picture, task.contents.payload), metadata)


def _read(source: Source, image: Entry) -> bytes:
    try:
        return source.read(image)
    except OSError as error:
        raise UnusableImageError(f"unreadable: {error.strerror or error}") from error


def _nothing_usable(config: PrepareConfig, parts: list[Part]) -> str:
    rejected = [row for part in parts for row in part.rejected]
    return (
        f"none of the {len(rejected)} images of source={config.source} can be used at size={config.size}; "
        f"the first: {rejected[0]['image']} is {rejected[0]['reason']}; lower size or look at the files"
    )
