"""An index for tars that others wrote: webdataset, img2dataset, litdata, or `tar` itself.

Each tar is read once (tar_scan). Pictures must be square and of one size. The index lies beside the tars, or in
the user's cache folder where they cannot be written.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lediflow.data.shards.index import INDEX_NAME, PARTS_NAME, ROW, Contents, ShardIndex
from lediflow.data.shards.tar_scan import PAYLOADS, PICTURES, Look, Scanned, scan_tar
from lediflow.data.sources.labels import numbered
from lediflow.data.storage.remote import is_remote
from lediflow.errors import UserError

log = logging.getLogger(__name__)

SCANNERS = 4  # threads


def load_or_index(where: str | Path) -> ShardIndex:
    """The index of a local set, made first where tars have none."""
    root = Path(where)
    if lacks_index(root):
        return index_tars(root)
    return ShardIndex.read_from(index_home(root), root)


def has_index(where: str | Path) -> bool:
    """Whether a local set can be read as it is."""
    return (index_home(Path(where)) / INDEX_NAME).exists()


def lacks_index(where: str | Path) -> bool:
    """Whether there are tars that must be read once before they can be used."""
    if is_remote(str(where)) or has_index(where) or (Path(where) / PARTS_NAME).is_dir():
        return False
    return any(Path(where).glob("*.tar"))


def index_home(root: Path) -> Path:
    """The folder of a set's index: its own, or one of the user's cache for tars that cannot be written to."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lediflow", "indexes", name)
    if (root / INDEX_NAME).exists() or not root.is_dir():
        return root
    return cached if (cached / INDEX_NAME).exists() or not os.access(root, os.W_OK) else root


def index_tars(root: Path) -> ShardIndex:
    """Index every .tar of a folder."""
    paths = sorted(root.glob("*.tar"))
    log.info("indexing %d tars of %s, which have no %s", len(paths), root, INDEX_NAME)
    with ThreadPoolExecutor(SCANNERS) as pool:  # hashing and reading let other threads run
        found = [scan for scan in pool.map(scan_tar, paths) if scan.places]
    if not found:
        raise UserError(
            f"the {len(paths)} tars of {root} hold no samples: no file ends in {', '.join(PAYLOADS)}"
        )
    labels, classes = numbered([label for scan in found for label in scan.labels])
    table = np.zeros(len(labels), dtype=ROW)
    table["key"], table["label"] = np.arange(len(labels)), labels
    for column, values in zip(("offset", "length", "crc32"), zip(*_places(found), strict=True), strict=True):
        table[column] = values
    contents = described(root, sum((scan.looks for scan in found), Counter()), classes)
    home = index_home(root)
    home.mkdir(parents=True, exist_ok=True)
    ShardIndex(root=root, contents=contents, shards=[scan.file for scan in found], table=table).save(home)
    return ShardIndex.read_from(home, root)


def _places(found: list[Scanned]) -> Iterator[tuple[int, int, int]]:
    return (place for scan in found for place in scan.places)


def described(root: Path, looks: Counter[Look], classes: list[str] | None) -> Contents:
    """What every sample of foreign tars is; refused unless they are alike."""
    looks = Counter({look: count for look, count in looks.items() if look.shape})
    shapes = Counter({look.shape[1:] for look in looks})
    if len(shapes) != 1 or len({look.dtype for look in looks}) != 1:
        raise UserError(_unlike(root, looks))
    (look, _), (height, width) = looks.most_common(1)[0], next(iter(shapes))
    channels = max(look.shape[0] for look in looks)
    if height != width:
        raise UserError(_unlike(root, looks))
    is_pictures = look.extension in PICTURES
    is_pixels = look.dtype == "uint8"
    return Contents(
        kind="images" if is_pictures else "latents",
        payload=look.extension,
        shape=[channels, height, width],
        dtype=look.dtype,
        image_size=width,
        mode="grey" if channels == 1 else "rgb",
        classes=classes,
        codec=None if is_pictures else {"name": "pixels" if is_pixels else "unknown", "has_logvar": False},
        made_from={"tars": root.name},
    )


def _unlike(root: Path, looks: Counter[Look]) -> str:
    found = "; ".join(
        f"{'x'.join(map(str, look.shape))} {look.extension} ({count})" for look, count in looks.most_common(4)
    )
    return (
        f"the samples of {root} are not squares of one size (channels x height x width: {found or 'none readable'}); "
        f"make them so: python -m lediflow.prepare source={root} output=... size=..."
    )
