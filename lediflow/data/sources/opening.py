"""Which kind of source lies at a path, told by content rather than by names where that is possible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lediflow.data.sources.archives import Archives
from lediflow.data.sources.compressed import CompressedTar, is_compressed
from lediflow.data.sources.folder import FolderSource, files_below
from lediflow.data.sources.image_list import LIST_EXTENSIONS, ImageList
from lediflow.data.sources.lmdb_images import LmdbSource
from lediflow.data.sources.names import is_hidden, is_picture_name
from lediflow.data.sources.parquet import ParquetImages, image_columns
from lediflow.data.sources.protocol import Opened, SourceError
from lediflow.data.sources.tar import TarSource
from lediflow.data.sources.zipped import ZipSource

ARCHIVE_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".zip", ".parquet")
KINDS = "a folder of images or of archives, a .tar, .tar.gz, .zip, .parquet, an LMDB, or a list in a .csv"
HEAD_BYTES = 512
LMDB_MAGIC = bytes.fromhex("dec0efbe")  # behind the 16 bytes of the page's header


def open_source(path: Path) -> Opened:
    """The source at `path`, whichever kind it is."""
    if not path.exists():
        raise SourceError(f"source={path} does not exist; give {KINDS}")
    with reading_explained(path):
        return _folder(path) if path.is_dir() else _file(path)


@contextmanager
def reading_explained(path: Path) -> Iterator[None]:
    """Turn an OSError met while looking at a source into a sentence with a next move."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise SourceError(
            f"source={path} cannot be read: {place}: {error.strerror or error}; check permissions and the disk"
        ) from error


def _folder(path: Path) -> Opened:
    if (path / "data.mdb").exists():
        return LmdbSource(path)
    archives: dict[str, Path] = {}
    others: list[str] = []
    for file in files_below(path):
        if is_picture_name(file.name):
            return FolderSource(path)
        if file.name.lower().endswith(ARCHIVE_EXTENSIONS) and not is_hidden(file.name):
            archives[file.relative_to(path).as_posix()] = file
        else:
            others.append(file.relative_to(path).as_posix())
    if not archives:
        return FolderSource(path)
    # img2dataset puts a table of addresses and captions beside each tar
    tables = {name for name in archives if name.removesuffix(".parquet") + ".tar" in archives}
    return Archives({name: _file(archives[name]) for name in sorted(archives.keys() - tables)}, others)


def _file(path: Path) -> Opened:
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head[257:262] == b"ustar":
        return TarSource(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZipSource(path)
    if head.startswith(b"PAR1"):
        return ParquetImages(path) if image_columns(path) else ImageList(path)
    if is_compressed(head):
        return CompressedTar(path)
    if head[16:20] == LMDB_MAGIC:
        return LmdbSource(path)
    if path.suffix.lower() in LIST_EXTENSIONS:
        return ImageList(path)
    if is_picture_name(path.name):
        raise SourceError(f"source={path} is one photograph; give its folder: source={path.parent}")
    return TarSource(path)
