"""Photographs -> image shards.

The images are dealt to shards in a fixed shuffled order, so that a few shards hold a mix of all classes.
Which images a shard gets is known before any is opened: every shard can be made alone, processes share the
work, and an interrupted run continues. A sample's key is its number in the source's sorted listing: the same
photograph has the same key at every size.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lediflow.data.duplicates import find_duplicates
from lediflow.data.images import CHANNELS, FORMATS, UnusableImageError, picture_bytes, square_picture
from lediflow.data.shards.build import Part, Progress, ShardBuild, write_part
from lediflow.data.shards.index import Contents, ShardIndex
from lediflow.data.shards.writer import Sample
from lediflow.data.sources import Entry, Listing, Source, list_images, open_source
from lediflow.data.workers import in_processes
from lediflow.errors import UserError


@dataclass(kw_only=True)
class PrepareConfig:
    """Which photographs become which shards."""

    source: str  # folder (nested folders are classes), .tar or .zip
    output: str  # folder for the shards; a finished one is reused, an interrupted one continued
    size: int = 64  # side of the square pictures; smaller photographs are rejected, never enlarged
    mode: str = "rgb"  # "grey" stores one channel
    format: str = "png"  # "webp" is lossless too and smaller, slower to read; "jpg" loses detail
    shard_samples: int = 1024  # images per tar: more means fewer files and longer repeats after a stop
    workers: int = 0  # processes that decode; 0 takes one per CPU core that this job may use


@dataclass(frozen=True)
class Prepared:
    """What a preparation found and made."""

    index: ShardIndex
    rejected: dict[str, int]  # reason -> images
    is_reused: bool  # nothing had to be done


class Candidate(NamedTuple):
    """One image of the source that may become a sample."""

    key: int
    image: Entry
    label: int
    duplicate_of: str | None


@dataclass(frozen=True)
class ShardTask:
    """One shard to make, in a form that travels to another process."""

    config: PrepareConfig
    contents: Contents
    number: int
    candidates: list[Candidate]

    def __len__(self) -> int:
        return len(self.candidates)


def prepare(config: PrepareConfig, progress: Progress | None = None) -> Prepared:
    """Make the shards, or what is missing of them."""
    _check(config)
    listing = list_images(Path(config.source))
    build = ShardBuild(Path(config.output), _contents(config, listing))
    if index := build.finished():
        return Prepared(index, build.rejections(), is_reused=True)
    tasks = _tasks(config, listing, build.contents)
    workers = config.workers or len(os.sched_getaffinity(0))
    parts = build.complete(tasks, lambda missing: in_processes(make_part, missing, workers), progress)
    if not any(part.file for part in parts):
        build.abandon()
        raise UserError(_nothing_usable(config, parts))
    index = build.finish(parts)
    return Prepared(index, build.rejections(), is_reused=False)


def _check(config: PrepareConfig) -> None:
    for name, value, known in (("mode", config.mode, CHANNELS), ("format", config.format, FORMATS)):
        if value not in known:
            raise UserError(f"{name}={value} is not known; choose one of {', '.join(known)}")
    for name in ("size", "shard_samples"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be at least 1")
    if (config.mode, config.format) == ("grey", "webp"):
        raise UserError("format=webp has no grey pictures; choose format=png, or mode=rgb")


def _contents(config: PrepareConfig, listing: Listing) -> Contents:
    return Contents(
        kind="images",
        payload=config.format,
        shape=[CHANNELS[config.mode], config.size, config.size],
        dtype="uint8",
        image_size=config.size,
        mode=config.mode,
        classes=listing.classes,
        made_from={
            "source": Path(config.source).resolve().name,
            "images": len(listing.images),
            "fingerprint": listing.fingerprint(),
            "size": config.size,
            "mode": config.mode,
            "format": config.format,
            "shard_samples": config.shard_samples,
        },
    )


def _tasks(config: PrepareConfig, listing: Listing, contents: Contents) -> list[ShardTask]:
    candidates = _dealt(_candidates(config, listing))
    starts = range(0, len(candidates), config.shard_samples)
    hands = [candidates[start : start + config.shard_samples] for start in starts]
    return [ShardTask(config, contents, number, hand) for number, hand in enumerate(hands)]


def _candidates(config: PrepareConfig, listing: Listing) -> list[Candidate]:
    duplicates = find_duplicates(open_source(Path(config.source)), listing.images)
    return [
        Candidate(key, image, label, duplicates.get(key))
        for key, (image, label) in enumerate(zip(listing.images, listing.labels, strict=True))
    ]


def _dealt(candidates: list[Candidate]) -> list[Candidate]:
    bits = np.random.Philox(key=0).random_raw(len(candidates))
    return [candidates[number] for number in np.argsort(bits, kind="stable")]


def make_part(task: ShardTask) -> Part:
    """Make one shard."""
    rejected: list[dict[str, Any]] = []
    samples = _usable(task, rejected)
    part = write_part(Path(task.config.output), task.contents, task.number, samples, handled=len(task))
    part.rejected = rejected
    return part


def _usable(task: ShardTask, rejected: list[dict[str, Any]]) -> Iterator[Sample]:
    """The task's samples one by one; what cannot be used is appended to `rejected`."""
    source = open_source(Path(task.config.source))
    for candidate in task.candidates:
        try:
            yield _sample(source, candidate, task)
        except UnusableImageError as reason:
            rejected.append({"key": candidate.key, "image": candidate.image.name, "reason": str(reason)})


def _sample(source: Source, candidate: Candidate, task: ShardTask) -> Sample:
    if candidate.duplicate_of:
        raise UnusableImageError(f"duplicate: of {candidate.duplicate_of}")
    picture = square_picture(_read(source, candidate.image), size=task.config.size, mode=task.config.mode)
    payload = picture_bytes(picture, task.config.format)
    return Sample(candidate.key, candidate.label, payload, _metadata(task, candidate))


def _read(source: Source, image: Entry) -> bytes:
    try:
        return source.read(image)
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UnusableImageError(f"unreadable: {getattr(error, 'strerror', None) or error}") from error


def _metadata(task: ShardTask, candidate: Candidate) -> dict[str, str | int]:
    metadata: dict[str, str | int] = {"source": candidate.image.name, "size": task.config.size}
    if classes := task.contents.classes:
        metadata |= {"class": classes[candidate.label], "label": candidate.label}
    return metadata


def _nothing_usable(config: PrepareConfig, parts: list[Part]) -> str:
    rejected = [row for part in parts for row in part.rejected]
    return (
        f"none of the {len(rejected)} images of source={config.source} can be used at size={config.size}; "
        f"the first: {rejected[0]['image']} is {rejected[0]['reason']}; lower size or look at the files"
    )
