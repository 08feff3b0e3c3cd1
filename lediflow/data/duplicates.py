"""Images of equal content in a listing.

Equal files have equal lengths, so only images that share their length with another are read. That may still be nearly
all of a large set, so processes share the reading, and the result is kept for a run that continues.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from lediflow.data.sources import Entry, Source
from lediflow.data.workers import OnProgress, in_processes, stop_if_asked
from lediflow.disk import write_json
from lediflow.records import RecordError, read_record, typed

DUPLICATES_NAME = "duplicates.json"  # in the `.parts` folder of a set under construction
DIGEST_BYTES = 16
IMAGES_PER_TASK = 1024


@dataclass(frozen=True)
class HashTask:
    """Images to hash; pickled to a worker process."""

    source: Source
    images: list[Entry]
    start: int  # index of the first one among all images that are read


def known_duplicates(
    path: Path, source: Source, images: list[Entry], workers: int, progress: OnProgress | None = None
) -> dict[int, int]:
    """The result of `find_duplicates`, computed once and kept in the file `path`."""
    try:
        return kept_duplicates(path)
    except RecordError:  # missing or damaged
        write_json(path, find_duplicates(source, images, workers, progress))
        return kept_duplicates(path)


def kept_duplicates(path: Path) -> dict[int, int]:
    """The duplicates recorded in the file `path`; RecordError if it is missing or damaged."""
    kept = read_record(path, "delete it, and the same command makes it again")
    try:
        return {int(number): typed(int, first, number) for number, first in kept.items()}
    except ValueError as error:
        raise RecordError(f"{path} is not a list of duplicates ({error})") from error


def find_duplicates(
    source: Source, images: list[Entry], workers: int = 1, progress: OnProgress | None = None
) -> dict[int, int]:
    """Index of each repeated image -> index of the first image with the same bytes."""
    suspects = _of_shared_length(images)
    digests = digests_of(source, [images[number] for number in suspects.tolist()], workers, progress)
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[group] != np.arange(len(suspects)))
    return dict(zip(suspects[repeated].tolist(), suspects[first[group[repeated]]].tolist(), strict=True))


def digests_of(
    source: Source, images: list[Entry], workers: int = 1, progress: OnProgress | None = None
) -> Shaped[np.ndarray, " images"]:
    """Digests of the images' contents, in the images' order; several processes share the reading."""
    digests = np.empty(len(images), f"V{DIGEST_BYTES}")
    done = 0
    for start, found in in_processes(hash_images, _tasks(source, images), workers):
        digests[start : start + len(found)] = found
        done += len(found)
        if progress:
            progress(done, len(images))
    return digests


def hash_images(task: HashTask) -> tuple[int, np.ndarray]:
    """The task's start, and the digests of its images."""
    digests = b"".join(_digest(task.source, image) for image in task.images)
    return task.start, np.frombuffer(digests, f"V{DIGEST_BYTES}")


def _of_shared_length(images: list[Entry]) -> Int64[np.ndarray, " suspects"]:
    lengths = np.fromiter((image.bytes for image in images), np.int64, len(images))
    _, group, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[group] > 1)


def _tasks(source: Source, images: list[Entry]) -> list[HashTask]:
    starts = range(0, len(images), IMAGES_PER_TASK)
    return [HashTask(source, images[start : start + IMAGES_PER_TASK], start) for start in starts]


def _digest(source: Source, image: Entry) -> bytes:
    stop_if_asked()
    try:
        return content_digest(source.read(image))
    except OSError:  # reported when the image is decoded
        return unreadable_digest(image)


def content_digest(content: bytes) -> bytes:
    """BLAKE2b digest of a file's content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def unreadable_digest(image: Entry) -> bytes:
    """A stand-in for the digest of an unreadable file, different from every other."""
    return content_digest(f"unreadable {image.name} {image.offset}".encode(errors="surrogateescape"))
