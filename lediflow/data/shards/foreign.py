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
from typing import Any

import numpy as np

from lediflow.data.shards.index import AGAIN, INDEX_NAME, PARTS_NAME, ROW, Contents, ShardIndex
from lediflow.data.shards.tar_scan import PAYLOADS, PICTURES, Look, Scanned, scan_tar
from lediflow.data.sources.labels import numbered
from lediflow.data.storage.remote import is_remote
from lediflow.errors import UserError
from lediflow.records import read_record

log = logging.getLogger(__name__)

SCANNERS = 4  # threads
DTYPES = ("uint8", "float16", "float32")


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
    root = Path(where)
    if is_remote(str(where)) or (root / PARTS_NAME).is_dir() or not any(root.glob("*.tar")):
        return False
    return not has_index(root) or _has_changed(root)


def _has_changed(root: Path) -> bool:
    """Whether tars of others came, went or grew since they were indexed."""
    about = read_record(index_home(root) / INDEX_NAME, AGAIN, {"made_from": dict[str, Any]})
    made_from = about.get("made_from", {})
    return "tars" in made_from and made_from["tars"] != _listing(sorted(root.glob("*.tar")))


def _listing(paths: list[Path]) -> str:
    """Changes with the names and sizes of files."""
    lines = "".join(f"{path.name} {path.stat().st_size}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


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
    log.info("indexing %d tars of %s: each is read once", len(paths), root)
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
    contents.made_from["tars"] = _listing(paths)
    names = np.array([name for scan in found for name in scan.names])
    home = index_home(root)
    home.mkdir(parents=True, exist_ok=True)
    shards = [scan.file for scan in found]
    ShardIndex(root=root, contents=contents, shards=shards, table=table, names=names).save(home)
    return ShardIndex.read_from(home, root)


def _places(found: list[Scanned]) -> Iterator[tuple[int, int, int]]:
    return (place for scan in found for place in scan.places)


def described(root: Path, looks: Counter[Look], classes: list[str] | None) -> Contents:
    """What every sample of foreign tars is; refused unless they are alike."""
    looks = Counter({look: count for look, count in looks.items() if look.shape})
    is_pictures = all(look.extension in PICTURES for look in looks)
    # pictures may mix grey and colour: they are decoded to one mode; arrays are taken as they are
    alike = {
        (look.shape[1:] if is_pictures else look.shape, look.dtype, look.extension in PICTURES)
        for look in looks
    }
    if len(alike) != 1 or not all(is_usable(look) for look in looks):
        raise UserError(_unlike(root, looks))
    look, _ = looks.most_common(1)[0]
    channels, width = max(look.shape[0] for look in looks), look.shape[-1]
    is_pixels = look.dtype == "uint8"
    return Contents(
        kind="images" if is_pictures else "latents",
        payload=look.extension,
        shape=[channels, width, width],
        dtype=look.dtype,
        image_size=width,
        mode="grey" if channels == 1 else "rgb",
        classes=classes,
        codec=None if is_pictures else {"name": "pixels" if is_pixels else "unknown", "has_logvar": False},
    )


def is_usable(look: Look) -> bool:
    """Channels, height and width of a square, in numbers that models take."""
    return len(look.shape) == 3 and look.shape[1] == look.shape[2] and look.dtype in DTYPES


def _unlike(root: Path, looks: Counter[Look]) -> str:
    found = "; ".join(
        f"{'x'.join(map(str, look.shape))} {look.extension} of {look.dtype} ({count})"
        for look, count in looks.most_common(4)
    )
    return (
        f"the samples of {root} are not squares of one size and type (channels x height x width: "
        f"{found or 'none readable'}); pictures become such by python -m lediflow.prepare source={root} output=... "
        f"size=..., arrays must be written so ({', '.join(DTYPES)}, C order, little endian)"
    )
