"""Which label file belongs to which picture: the one rule for archives that are prepared and tars read in place.

The label of `a.1.png` is in `a.1.cls`, or is "label" or "cls" in `a.1.json`: the file whose name equals the picture's
without the last suffix, at any place in the archive. webdataset groups files by their name up to the first dot, so
`a.cls` may also be the label of `a.img.png`. It is used for that picture if the group holds no other picture and no
other label; otherwise the label is ambiguous, and the archive is refused.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lediflow.data.sources.listing import as_label
from lediflow.data.sources.names import is_hidden, is_picture_name, plain, shown, stem
from lediflow.data.sources.protocol import Entry, Label, SourceError

LABEL_EXTENSIONS = (".cls", ".json")  # in order of precedence


class Partners(NamedTuple):
    """Files that may hold a picture's label."""

    files: list[str]
    rivals: list[str]  # other members of the group that may own the label; if there are any, it is ambiguous


def group(name: str) -> str:
    """The key in webdataset's sense: a path up to the first dot of its last part."""
    folder, slash, file = plain(name).rpartition("/")
    return folder + slash + file.partition(".")[0]


def is_label_name(name: str) -> bool:
    """Whether a file may hold the label of a picture of the same name."""
    return name.lower().endswith(LABEL_EXTENSIONS) and not is_hidden(name)


def partners(pictures: Sequence[str], label_files: Sequence[str]) -> dict[str, Partners]:
    """Label files of each picture. Raises SourceError if two pictures or two label files have the same name."""
    files = sorted(label_files, key=lambda name: not name.lower().endswith(LABEL_EXTENSIONS[0]))
    by_stem, by_group = _filed(files, stem), _filed(files, group)
    dotted = {group(name) for name in pictures if group(name) != stem(name)}
    groups = _filed((name for name in pictures if group(name) in dotted), group)
    found = {}
    for name in pictures:
        key, own = group(name), by_stem.get(stem(name), [])
        if own or key == stem(name):
            found[name] = Partners(own, [])
        else:
            others = [
                *groups[key],
                *(file for file in by_group.get(key, []) if file.lower().endswith(".cls")),
            ]
            shared = by_stem.get(key, [])
            found[name] = Partners(shared, [file for file in others if file != name and file not in shared])
    refuse_doubles(pictures)
    used = {file for each in found.values() for file in each.files}
    refuse_doubles([str(PurePosixPath(file).with_suffix(_kind(file))) for file in files if file in used])
    return found


def _kind(file: str) -> str:
    """The suffix in lower case: x.cls and x.CLS are two labels of one picture."""
    return PurePosixPath(file).suffix.lower()


def _filed(names: Iterable[str], place: Callable[[str], str]) -> dict[str, list[str]]:
    filed: dict[str, list[str]] = {}
    for name in names:
        filed.setdefault(place(name), []).append(name)
    return filed


def refuse_doubles(names: Iterable[str]) -> None:
    """SourceError if a name occurs twice: pictures and labels could not be matched."""
    doubled = [name for name, count in Counter(map(plain, names)).items() if count > 1]
    if doubled:
        raise SourceError(
            f"{len(doubled)} of its files occur twice under one name ({_listed(doubled)}); write the archive again "
            "with a name for each file (unpacking keeps only the last of each name)"
        )


def paired_label(picture: str, partners: Partners, label_of: Callable[[str], Label]) -> Label:
    """The label of a picture; SourceError if it may belong to another."""
    for file in partners.files:
        if (label := label_of(file)) is None:
            continue
        if partners.rivals:
            raise SourceError(
                f"{shown(file)} may be the label of {shown(picture)} or of {_listed(partners.rivals)}: they share "
                f"their name up to the first dot; give each picture a label file of its own name "
                f"({shown(stem(picture))}.cls)"
            )
        return label
    return None


def label_in(name: str, content: bytes) -> Label:
    """The label in a label file; None if there is none, or the file cannot be read."""
    if name.lower().endswith(".json"):
        about = json_object(content)
        labels = (_plain_label(about.get(field)) for field in ("label", "cls"))
        return next((label for label in labels if label is not None), None)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return as_label(text) if text.strip().isprintable() else None


def _plain_label(value: object) -> Label:
    """A label in a .json file; None for lists and objects, and for text that UTF-8 cannot encode."""
    is_plain = not isinstance(value, list | dict) and shown(str(value)) == str(value)
    return as_label(value) if is_plain else None


def json_object(content: bytes) -> dict[str, object]:
    """The object in a .json file; an empty one if the file holds none."""
    try:
        about = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


@contextmanager
def refusals_named(archive: Path) -> Iterator[None]:
    """Prefix a SourceError with the archive's path."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{archive}: {error}") from error


def labelled(entries: Iterable[Entry], read: Callable[[Entry], bytes]) -> Iterator[Entry]:
    """An archive's files: pictures with their labels; label files that belong to a picture are left out."""
    pictures: list[Entry] = []
    label_files: list[Entry] = []
    for entry in entries:
        if entry.is_link:
            yield entry
        elif is_picture_name(entry.name):
            pictures.append(entry)
        elif is_label_name(entry.name):
            label_files.append(entry)
        else:
            yield entry
    files = {entry.name: entry for entry in label_files}
    found = partners([picture.name for picture in pictures], [file.name for file in label_files])
    for picture in pictures:
        label = paired_label(
            picture.name, found[picture.name], lambda name: label_in(name, read(files[name]))
        )
        yield picture._replace(label=label)
    used = {name for each in found.values() for name in each.files}
    yield from (entry for entry in label_files if entry.name not in used)


def _listed(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if names[3:] else "")
