"""What a set of shards keeps about its source: `source.json` and `source.digests.npy` beside the index.

The index names the source by what can be found without opening a picture: names and lengths. A picture that is edited
in place may keep both. So modification times are kept, too, and a digest of every picture's content as it was read.
Times that differ prove nothing (`touch`, a copy): then contents are compared, and only other contents are a change.
Times stand beside the index and not in it: the same pictures give the same index wherever they were copied.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lediflow.data.duplicates import DIGEST_BYTES, digests_of
from lediflow.data.shards.index import read_array
from lediflow.data.shards.part import Part
from lediflow.data.sources import Listing, Source
from lediflow.data.sources.names import counted, kind_of, shown
from lediflow.data.sources.protocol import Progress
from lediflow.disk import whole_or_absent, write_json
from lediflow.records import UNREADABLE, read_dataclass, read_record

RECORD_NAME = "source.json"
DIGESTS_NAME = "source.digests.npy"
DIGEST = np.dtype(f"V{DIGEST_BYTES}")
UNKNOWN = bytes(DIGEST_BYTES)

Digests = Shaped[np.ndarray, " images"]  # of DIGEST, by the images' numbers in the listing


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What was found in a source."""

    modified: str  # changes with the modification time of any of its files
    listing: str  # changes with the images' names and classes
    notes: list[str]  # sentences for people: classes, kinds of images, what was passed over
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
        """The record in a folder; None where there is none, as in sets of earlier versions, or where it is damaged."""
        path = folder / RECORD_NAME
        try:
            return read_dataclass(cls, read_record(path, "prepare the set anew"), str(path))
        except ValueError:  # RecordError is one
            return None


def listing_notes(listing: Listing) -> list[str]:
    """Sentences about a listing for people."""
    kinds = Counter(kind_of(image.name) for image in listing.images)
    several = [f"kinds of images: {counted(kinds)}"] if len(kinds) > 1 else []
    left = [f"passed over: {listing.passed_over}"] if listing.passed_over else []
    return [*listing.class_notes, *several, *left]


def duplicates_note(listing: Listing, duplicates: dict[int, int]) -> str:
    """Which repeated pictures have another class than the first of their content, which is kept; empty if none."""
    classes, labels = listing.classes, listing.labels
    if not classes:
        return ""
    torn = [
        (number, first) for number, first in sorted(duplicates.items()) if labels[number] != labels[first]
    ]
    if not torn:
        return ""
    number, first = torn[0]
    return (
        f"{len(torn):,} of the duplicates have another class than the first picture of their content, which is kept: "
        f"{shown(listing.images[number].name)} ({shown(classes[labels[number]])}) is "
        f"{shown(listing.images[first].name)} ({shown(classes[labels[first]])})"
    )


def _digest_of(listing: Listing) -> str:
    digest = hashlib.sha256()
    for image, label in zip(listing.images, listing.labels, strict=True):
        kind = listing.classes[label] if listing.classes else ""
        digest.update(f"{image.name}\0{label}\0{kind}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def collected_digests(parts: Iterable[Part], images: int, duplicates: dict[int, int]) -> Digests:
    """Every image's digest out of the records of the shards; UNKNOWN where an earlier version made one."""
    digests = np.full(images, UNKNOWN, DIGEST)
    for part in parts:
        for key, digest in part.digests.items():
            digests[int(key)] = bytes.fromhex(digest)
    for number, first in duplicates.items():
        digests[number] = digests[first]
    return digests


def save_digests(digests: Digests, folder: Path) -> None:
    """Keep them beside the record."""
    with whole_or_absent(folder / DIGESTS_NAME) as stream:
        np.save(stream, digests)


def load_digests(folder: Path) -> Digests | None:
    """The digests of a finished set; None where there are none that can be compared."""
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
    progress: Progress | None,
) -> list[str]:
    """Names of those of these images whose content is another than the digests say."""
    images = [listing.images[number] for number in numbers]
    changed = np.flatnonzero(digests_of(source, images, workers, progress) != digests)
    return [images[place].name for place in changed.tolist()]


def describe_edits(names: Sequence[str], images: int) -> str:
    """As `2 of the 50 pictures were edited since, the first is a.png`."""
    were = "was" if len(names) == 1 else "were"
    return f"{len(names):,} of the {images:,} pictures {were} edited since, the first is {shown(names[0])}"
