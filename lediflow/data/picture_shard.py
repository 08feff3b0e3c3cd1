"""One shard of square pictures: made alone, by whatever process, from a list of images that was dealt before."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.data.duplicates import content_digest, unreadable_digest
from lediflow.data.images import centre_square, picture_bytes
from lediflow.data.photograph import decoded_photograph
from lediflow.data.pixels import UnusableImageError
from lediflow.data.shards.build import Part, write_part
from lediflow.data.shards.index import Contents
from lediflow.data.shards.writer import Sample
from lediflow.data.sources import Entry, Source
from lediflow.data.workers import stop_if_asked


@dataclass(frozen=True)
class ShardTask:
    """One shard to make, in a form that travels to another process."""

    root: Path  # where the shards go
    contents: Contents
    source: Source
    number: int
    keys: list[int]
    images: list[Entry]
    labels: list[int]
    duplicate_of: dict[int, str]  # key -> name of the first image with the same bytes

    def __len__(self) -> int:
        return len(self.keys)


def make_part(task: ShardTask) -> Part:
    """Make one shard."""
    rejected: list[dict[str, Any]] = []
    digests: dict[str, str] = {}
    samples = _usable(task, rejected, digests)
    part = write_part(task.root, task.contents, task.number, samples, handled=len(task))
    part.rejected, part.digests = rejected, digests
    return part


def _usable(task: ShardTask, rejected: list[dict[str, Any]], digests: dict[str, str]) -> Iterator[Sample]:
    """The task's samples one by one; what cannot be used goes to `rejected`, the contents' digests to `digests`."""
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
