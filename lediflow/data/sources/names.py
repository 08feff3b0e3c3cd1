"""Which files are pictures: the one rule for prepare, evaluate and tars that are read in place.

A picture has one of the extensions below, in upper or lower case, and is not hidden. All other files are skipped;
they are counted by kind, so that commands can name them. `image_extension` recognises an image by its first bytes, for
sources whose entries have no file names.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

PICTURE_EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
CAPTION_EXTENSIONS = (".caption", ".json", ".txt")  # such a file with a picture's name describes that picture
NAMES_SHOWN = 3
MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"\x00\x00\x00\x0cjP  ": ".jp2",
}
HEAD_BYTES = 16


def is_picture_name(name: str) -> bool:
    """Whether a path has a picture's extension and is not hidden."""
    return PurePosixPath(name).suffix.lower() in PICTURE_EXTENSIONS and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether any part of a path is hidden, or a folder of macOS's resource forks."""
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in parts)


def plain(name: str) -> str:
    """A path in an archive without the leading ./ that tar may add."""
    return name.removeprefix("./")


def stem(name: str) -> str:
    """A path without its last suffix."""
    folder, slash, file = plain(name).rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def kind_of(name: str) -> str:
    """The kind of a file by its name: `.txt`, `no extension` or `hidden`."""
    return "hidden" if is_hidden(name) else PurePosixPath(name).suffix.lower() or "no extension"


def printable(name: str) -> str:
    """A name for messages: bytes that are not UTF-8, which a terminal may refuse, become escapes."""
    return name.encode(errors="backslashreplace").decode()


@dataclass
class PassedOver:
    """The files of a source that are not taken as pictures."""

    kinds: Counter[str] = field(default_factory=Counter)  # `.txt`, `no extension`, `hidden` ... -> files
    first: list[str] = field(default_factory=list)  # the first few names

    def add(self, name: str, kind: str | None = None) -> None:
        """Count a file, under `kind` or else under the kind that its name says."""
        self.kinds[kind or kind_of(name)] += 1
        if len(self.first) < NAMES_SHOWN:
            self.first.append(name)

    def __add__(self, other: "PassedOver") -> "PassedOver":
        return PassedOver(self.kinds + other.kinds, [*self.first, *other.first][:NAMES_SHOWN])

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def __str__(self) -> str:
        """The files for a message, such as `3 files (2 .txt, 1 hidden): a.txt, b.txt, .c.png`."""
        total = self.kinds.total()
        more = ", ..." if total > len(self.first) else ""
        files = "1 file" if total == 1 else f"{total:,} files"
        return f"{files} ({counted(self.kinds)}): {', '.join(map(printable, self.first))}{more}"


def passed_over(pictures: Iterable[str], others: Sequence[tuple[str, bool]]) -> PassedOver:
    """Count `others` (name, whether it is a link), leaving out the captions of the pictures."""
    stems = {stem(name) for name in pictures} if others else set()
    found = PassedOver()
    for name, is_link in sorted(others):
        if not (name.lower().endswith(CAPTION_EXTENSIONS) and stem(name) in stems):
            found.add(name, "link" if is_link else None)
    return found


def counted(kinds: Counter[str]) -> str:
    """The kinds for a message, such as `2 .txt, 1 hidden`, the most frequent kind first."""
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())


def image_extension(head: bytes) -> str | None:
    """The extension for a file with these first HEAD_BYTES bytes; None if it is not an image."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return ".avif"
    return next((extension for magic, extension in MAGIC.items() if head.startswith(magic)), None)
