"""Photographs -> image shards.

Shard s holds the images number s * shard_samples ... of the source's sorted listing, less the rejected ones,
so every shard can be made alone: processes share the work, and an interrupted run continues. A sample's key
is its number in the listing: the same photograph has the same key at every size.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from lediflow.data.duplicates import find_duplicates
from lediflow.data.images import CHANNELS, FORMATS, UnusableImageError, picture_bytes, square_picture
from lediflow.data.index import Contents, ShardIndex
from lediflow.data.shard_build import Part, Progress, ShardBuild, write_part
from lediflow.data.shard_writer import Sample
from lediflow.data.sources import Entry, Listing, list_images, open_source
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
    workers: int = 0  # processes that decode; 0 takes one per CPU core


@dataclass(frozen=True)
class Prepared:
    """What a preparation found and made."""

    index: ShardIndex
    rejected: dict[str, int]  # reason -> images
    is_reused: bool  # nothing had to be done


@dataclass(frozen=True)
class ShardTask:
    """One shard to make, in a form that travels to another process."""

    config: PrepareConfig
    contents: Contents
    number: int
    first_key: int
    images: list[Entry]
    labels: list[int]
    duplicates: dict[int, str]  # key -> the image it repeats

    def __len__(self) -> int:
        return len(self.images)


def prepare(config: PrepareConfig, progress: Progress | None = None) -> Prepared:
    """Make the shards, or what is missing of them."""
    _check(config)
    listing = list_images(Path(config.source))
    build = ShardBuild(Path(config.output), _contents(config, listing))
    if index := build.finished():
        return Prepared(index, build.rejections(), is_reused=True)
    tasks = _tasks(config, listing, build.contents)
    workers = config.workers or os.cpu_count() or 1
    parts = build.complete(tasks, lambda missing: _made(missing, workers), progress)
    if not any(part.rows for part in parts):
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
    duplicates = find_duplicates(open_source(Path(config.source)), listing.images)
    tasks = []
    for number, first in enumerate(range(0, len(listing.images), config.shard_samples)):
        chosen = slice(first, first + config.shard_samples)
        images, labels = listing.images[chosen], listing.labels[chosen]
        repeated = {key: duplicates[key] for key in range(first, first + len(images)) if key in duplicates}
        tasks.append(ShardTask(config, contents, number, first, images, labels, repeated))
    return tasks


def _made(tasks: list[ShardTask], workers: int) -> Iterator[Part]:
    """Parts as they get ready, in any order."""
    if min(workers, len(tasks)) <= 1:
        yield from map(make_part, tasks)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can lock it up
    with ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_die_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(make_part, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _die_with_parent() -> None:
    """A pool's workers outlive a killed parent; here they follow it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def make_part(task: ShardTask) -> Part:
    """Make one shard."""
    samples, rejected = [], []
    for key, sample in _samples(task):
        if isinstance(sample, Sample):
            samples.append(sample)
        else:
            rejected.append({"key": key, "image": task.images[key - task.first_key].name, "reason": sample})
    part = write_part(Path(task.config.output), task.contents, task.number, samples, handled=len(task))
    part.rejected = rejected
    return part


def _samples(task: ShardTask) -> Iterable[tuple[int, Sample | str]]:
    """Key and sample, or key and the reason why there is none."""
    source = open_source(Path(task.config.source))
    for key, (image, label) in enumerate(zip(task.images, task.labels, strict=True), task.first_key):
        if key in task.duplicates:
            yield key, f"duplicate: of {task.duplicates[key]}"
            continue
        try:
            payload = _payload(source.read(image), task.config)
            yield key, Sample(key, label, payload, _metadata(task, image, label))
        except UnusableImageError as unusable:
            yield key, str(unusable)
        except OSError as error:
            yield key, f"unreadable: {error.strerror}"


def _payload(content: bytes, config: PrepareConfig) -> bytes:
    return picture_bytes(square_picture(content, size=config.size, mode=config.mode), config.format)


def _metadata(task: ShardTask, image: Entry, label: int) -> dict[str, str | int]:
    named = {"class": task.contents.classes[label], "label": label} if task.contents.classes else {}
    return {"source": image.name, "size": task.config.size} | named


def _nothing_usable(config: PrepareConfig, parts: list[Part]) -> str:
    rejected = [row for part in parts for row in part.rejected]
    return (
        f"none of the {len(rejected)} images of source={config.source} can be used at size={config.size}; "
        f"the first: {rejected[0]['image']} is {rejected[0]['reason']}; lower size or look at the files"
    )
