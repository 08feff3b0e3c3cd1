"""An index for tars that another program wrote: webdataset, img2dataset, litdata, or `tar` itself.

Each tar is read once (tar_samples.py). Samples must be square and of one size. The index is next to the tars, or in
the user's cache folder if that folder is read-only. Modification times of the tars are kept in a separate file: the
same tars have the same index wherever they were copied.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lediflow.data.shards.index import AGAIN, INDEX_NAME, PARTS_NAME, ROW, Contents, ShardIndex
from lediflow.data.shards.tar_samples import (
    ARRAY_EXTENSION,
    PayloadKind,
    TarScan,
    scan_tar,
)
from lediflow.data.sources.labels import class_notes, numbered
from lediflow.data.sources.names import (
    PICTURE_EXTENSIONS,
    PassedOver,
    is_hidden,
    is_picture_name,
    plain,
)
from lediflow.data.storage.folders import is_remote
from lediflow.disk import hash_key, write_json
from lediflow.errors import UserError
from lediflow.records import UNREADABLE, read_record
from lediflow.text import shape_text

log = logging.getLogger(__name__)

SCANNERS = 4  # threads that read tars
DTYPES = ("uint8", "float16", "float32")
# archives that are not read in place unless they are plain tars
PACKED = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".zip")
TIMES_NAME = "index.times.json"  # modification times of the tars when they were indexed, in nanoseconds


def load_or_index(where: str | Path) -> ShardIndex:
    """The index of a local set; tars without one are indexed first."""
    root = Path(where)
    if lacks_index(root):
        return index_tars(root)
    return ShardIndex.read_from(index_home(root), root)


def has_index(where: str | Path) -> bool:
    """Whether a local set has an index."""
    return (index_home(Path(where)) / INDEX_NAME).exists()


def lacks_index(where: str | Path) -> bool:
    """Whether a folder holds tars that must be indexed before they can be read."""
    root = Path(where)
    if is_remote(str(where)) or (root / PARTS_NAME).is_dir() or not tars_of(root):
        return False
    home = index_home(root)
    return not (home / INDEX_NAME).exists() or _has_changed(root, home)


def tars_of(root: Path) -> list[Path]:
    """The tars of a folder that are not hidden, sorted by name."""
    return sorted(path for path in root.glob("*.tar") if not is_hidden(path.name))


def index_home(root: Path) -> Path:
    """The folder of a set's index: its own, or one in the user's cache if its own is read-only."""
    if not root.is_dir():
        return root
    name = hash_key(str(root.resolve()))
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lediflow", "indexes", name)
    for home in (root, cached):
        if (home / INDEX_NAME).exists() and not _has_changed(root, home):
            return home
    return root if os.access(root, os.W_OK) else cached


def _has_changed(root: Path, home: Path) -> bool:
    """Whether tars were added, removed, resized or modified since the index in `home` was made."""
    about = read_record(home / INDEX_NAME, AGAIN, {"made_from": dict[str, Any]})
    made_from = about.get("made_from", {})
    if "tars" not in made_from:
        return False
    tars = tars_of(root)
    return made_from["tars"] != _listing_hash(tars) or _were_written(tars, home)


def _were_written(tars: list[Path], home: Path) -> bool:
    try:
        return json.loads((home / TIMES_NAME).read_text()) != _times(tars)
    except (OSError, *UNREADABLE):  # truncated, or the index was made before times were recorded
        indexed = (home / INDEX_NAME).stat().st_mtime_ns
        return any(path.stat().st_mtime_ns > indexed for path in tars)


def _listing_hash(paths: list[Path]) -> str:
    """A hash of the names and sizes of files."""
    lines = "".join(f"{path.name} {path.stat().st_size}\n" for path in paths)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _times(paths: list[Path]) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in paths}


def index_tars(root: Path) -> ShardIndex:
    """Index every .tar of a folder; log which files are skipped and which classes there are."""
    paths, home = tars_of(root), index_home(root)
    times, is_again = _times(paths), (home / INDEX_NAME).exists()
    why = "they changed since they were indexed, so each is read again" if is_again else "each is read once"
    log.info("indexing %d tars of %s: %s", len(paths), root, why)
    with ThreadPoolExecutor(SCANNERS) as pool:  # hashing and reading release the GIL
        scans = list(pool.map(scan_tar, paths))
    left = sum((scan.passed_over for scan in scans), _not_read(root))
    found = [scan for scan in scans if scan.places]
    if not found:
        raise UserError(
            f"{root} holds no samples in its tars ({len(paths)}): found {left or 'nothing'}; samples end in "
            f"{', '.join(PICTURE_EXTENSIONS)} or {ARRAY_EXTENSION}"
        )
    labels, classes = _numbered_labels(found)
    if left:
        log.warning("skipped in %s: %s", root, left)
    table = np.zeros(len(labels), dtype=ROW)
    table["key"], table["label"] = np.arange(len(labels)), labels
    for column, values in zip(("offset", "length", "crc32"), zip(*_places(found), strict=True), strict=True):
        table[column] = values
    contents = contents_of(root, sum((scan.kinds for scan in found), Counter()), classes)
    contents.made_from["tars"] = _listing_hash(paths)
    names = np.array([name for scan in found for name in scan.names])
    home.mkdir(parents=True, exist_ok=True)
    shards = [scan.file for scan in found]
    ShardIndex(root=root, contents=contents, shards=shards, table=table, names=names).save(home)
    write_json(home / TIMES_NAME, times)
    return ShardIndex.read_from(home, root)


def _not_read(root: Path) -> PassedOver:
    """Pictures and archives in the folder or its subfolders that are not read."""
    left = PassedOver()
    for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*")):
        is_archive = name.lower().endswith(PACKED) and not is_hidden(name)
        is_read = "/" not in name and name.endswith(".tar")
        if is_picture_name(name) or (is_archive and not is_read):
            left.add(name)
    return left


def _numbered_labels(found: list[TarScan]) -> tuple[list[int], list[str] | None]:
    """Class numbers and names; notes about them are logged."""
    labels = [label for scan in found for label in scan.labels]
    numbers, classes = numbered(labels)
    names = [f"{scan.file.name}/{file}" for scan in found for file in scan.files]
    first, *odd = class_notes(names, labels, numbers, classes)
    folders = {PurePosixPath(plain(file)).parent for scan in found for file in scan.files}
    if all(label is None for label in labels) and len(folders) > 1:
        first = (
            f"no classes: no sample has a label file, and the {len(folders):,} folders inside the tars are no classes "
            "where tars are read in place; lediflow.prepare takes them as classes"
        )
    is_lost = classes is None and (any(label is not None for label in labels) or len(folders) > 1)
    log.log(logging.WARNING if is_lost else logging.INFO, "%s", first)
    for note in odd:
        log.warning("%s", note)
    return numbers, classes


def _places(found: list[TarScan]) -> Iterator[tuple[int, int, int]]:
    return (place for scan in found for place in scan.places)


def contents_of(root: Path, kinds: Counter[PayloadKind], classes: list[str] | None) -> Contents:
    """What all samples have in common; UserError unless they have one size and type."""
    kinds = Counter({kind: count for kind, count in kinds.items() if kind.shape})
    is_pictures = all(kind.is_picture for kind in kinds)
    # pictures may mix grey and colour, as they are decoded to one mode; arrays must agree in channels too
    alike = {(kind.shape[1:] if is_pictures else kind.shape, kind.dtype, kind.is_picture) for kind in kinds}
    if len(alike) != 1 or not all(is_usable(kind) for kind in kinds):
        raise UserError(_unlike(root, kinds))
    kind, _ = kinds.most_common(1)[0]
    channels, width = max(kind.shape[0] for kind in kinds), kind.shape[-1]
    is_pixels = kind.dtype == "uint8"
    return Contents(
        kind="images" if is_pictures else "latents",
        payload=kind.extension,
        shape=[channels, width, width],
        dtype=kind.dtype,
        image_size=width,
        mode="grey" if channels == 1 else "rgb",
        classes=classes,
        codec=None if is_pictures else {"name": "pixels" if is_pixels else "unknown", "has_logvar": False},
    )


def is_usable(kind: PayloadKind) -> bool:
    """Whether it is (channels, side, side) in a dtype that models accept."""
    return len(kind.shape) == 3 and kind.shape[1] == kind.shape[2] and kind.dtype in DTYPES


def _unlike(root: Path, kinds: Counter[PayloadKind]) -> str:
    found = "; ".join(
        f"{shape_text(kind.shape)} {kind.extension} of {kind.dtype} ({count})"
        for kind, count in kinds.most_common(4)
    )
    return (
        f"the samples of {root} are not squares of one size and type (channels x height x width: "
        f"{found or 'none readable'}); convert pictures with python -m lediflow.prepare source={root} output=... "
        f"size=..., and write arrays in that form ({', '.join(DTYPES)}, C order, little endian)"
    )
