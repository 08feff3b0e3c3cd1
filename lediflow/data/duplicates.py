"""Files of equal content in a listing.

Equal files have equal lengths, so only files that share their length with another are read.
"""

import hashlib
from collections import Counter

from lediflow.data.sources import Entry, Source


def find_duplicates(source: Source, images: list[Entry]) -> dict[int, str]:
    """Number of each repeated image -> name of the first image with the same bytes."""
    lengths = Counter(image.bytes for image in images)
    first: dict[bytes, str] = {}
    repeated: dict[int, str] = {}
    for number, image in enumerate(images):
        if lengths[image.bytes] > 1:
            name = first.setdefault(_content_hash(source, image), image.name)
            if name != image.name:
                repeated[number] = name
    return repeated


def _content_hash(source: Source, image: Entry) -> bytes:
    try:
        return hashlib.sha256(source.read(image)).digest()
    except OSError:  # reported when it is to be decoded
        return image.name.encode(errors="surrogateescape")
