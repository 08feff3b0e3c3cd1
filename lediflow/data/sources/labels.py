"""Labels: what counts as one, the classes made of them, and which label file belongs to which picture.

A label is a class number or a class name. Numbers are kept, so that two sets made from one data set agree although a
class is missing in one of them. Whole numbers may be written as 3.0, as pandas does where some rows have no label.
True and False are names.

Pairing is the one rule for archives that are prepared and tars read in place. The label of `a.1.png` is in `a.1.cls`,
or is "label" or "cls" in `a.1.json`: the file whose name equals the picture's without the last suffix, at any place in
the archive. webdataset groups files by their name up to the first dot, so `a.cls` may also be the label of `a.img.png`.
It is used for that picture if the group holds no other picture and no other label; otherwise the label is ambiguous,
and the archive is refused.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lediflow.data.sources.names import is_hidden, is_picture_name, plain, printable, stem
from lediflow.data.sources.protocol import Entry, Label, SourceError

LABEL_COLUMNS = ("label", "class", "cls", "category")
MOST_NUMBERS = 100_000  # larger numbers are treated as names, such as dates
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(\.0*)?")
CLASSES_SHOWN = 5
NO_CLASSES = "no classes: no image has a label, and none is in a folder of its class"
LIKE_NOTHING = ("none", "null", "na", "n/a", "<na>", "-")  # what programs may write for a missing label
LABEL_EXTENSIONS = (".cls", ".json")  # in order of precedence


def as_label(value: Any) -> Label:
    """The label in a table's cell or a file's content; -1, NaN and nothing mean no label."""
    text = "" if value is None else str(value).strip()
    if number := WHOLE_NUMBER.fullmatch(text):
        return int(number[1]) if int(number[1]) >= 0 else None
    return None if text.lower() in ("", "nan") else text


def numbered(
    labels: Sequence[Label], class_names: list[str] | None = None
) -> tuple[list[int], list[str] | None]:
    """Class number of each label, and the classes' names; all -1 and None unless every label is present."""
    known = [label for label in labels if label is not None]
    if not known or len(known) < len(labels):
        return [-1] * len(labels), None
    numbers = [label for label in known if isinstance(label, int) and label < MOST_NUMBERS]
    if len(numbers) == len(known):
        names = class_names or []
        more = range(len(names), max(numbers) + 1)
        return numbers, [*names, *map(str, more)]
    sorted_names = sorted({str(label) for label in known})
    place = {name: number for number, name in enumerate(sorted_names)}
    return [place[str(label)] for label in known], sorted_names


def class_notes(
    names: Sequence[str], labels: Sequence[Label], numbers: Sequence[int], classes: list[str] | None
) -> list[str]:
    """Sentences about the classes made of these labels; the first says how many there are, or why there are none."""
    if classes is not None:
        return [found_classes(numbers, classes), *label_notes(labels), *alike_notes(classes)]
    return [
        missing_label(names, labels) if any(label is not None for label in labels) else _no_classes(names)
    ]


def shown_classes(classes: Sequence[str]) -> str:
    """The first few classes, for messages."""
    names = ", ".join(map(printable, classes[:CLASSES_SHOWN]))
    return names + (", ..." if len(classes) > CLASSES_SHOWN else "")


def found_classes(numbers: Sequence[int], classes: list[str]) -> str:
    """The classes for a message, such as `3 classes (ant, bee, cat), of which 2 occur`."""
    occurring = len(set(numbers))
    count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
    rest = f", of which {occurring:,} occur" if occurring < len(classes) else ""
    return f"{count} ({shown_classes(classes)}){rest}"


def _no_classes(names: Sequence[str]) -> str:
    """The sentence for a source without labels and class folders; backslashes may have been meant as folders."""
    backslashed = [name for name in names if "\\" in name]
    if not backslashed:
        return NO_CLASSES
    contain = "contains a backslash" if len(backslashed) == 1 else "contain backslashes"
    return (
        f"{NO_CLASSES} ({len(backslashed):,} of {len(names):,} names {contain}, which do not separate folders here, "
        f"the first is {printable(backslashed[0])}; for classes separate folders by /)"
    )


def label_notes(labels: Sequence[Label]) -> list[str]:
    """Sentences about suspicious labels, for a source where every image has one."""
    notes = []
    numbers = sorted({label for label in labels if isinstance(label, int)})
    names = sorted({label for label in labels if isinstance(label, str)})
    if numbers and names:
        notes.append(
            f"the labels mix numbers and names ({numbers[0]}, {printable(names[0])}): all are taken as names, and are "
            "numbered in their order"
        )
    for name in names:
        if name.lower() in LIKE_NOTHING:
            notes.append(f"one class is called {name}: if this means no label, leave the label empty")
    return notes


def alike_notes(classes: Sequence[str]) -> list[str]:
    """A sentence about classes that were probably meant as one; none if all names are clearly different."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold().strip(), []).append(name)
    alike = [f"{', '.join(map(printable, names))}" for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    more = "; ..." if alike[CLASSES_SHOWN:] else ""
    return [
        f"names of classes that differ only in capitals, spaces or the encoding of accents: "
        f"{'; '.join(alike[:CLASSES_SHOWN])}{more}; they are different classes: if they mean the same, rename them"
    ]


def misnumbered_notes(folders: Sequence[str]) -> list[str]:
    """A sentence about class folders named by numbers that are not their class numbers; `folders` in their order."""
    numbers = [as_label(name) for name in folders]
    wrong = next((place for place, number in enumerate(numbers) if number != place), None)
    if wrong is None or not all(isinstance(number, int) for number in numbers):
        return []
    return [
        f"the class folders are named by numbers, but folder {folders[wrong]} is class {wrong}: folders are numbered "
        "from 0 in the order of their names as text; to keep the numbers, give a list with a column label as the source"
    ]


def missing_label(names: Sequence[str], labels: Sequence[Label]) -> str:
    """The sentence for a source where only some images have a label."""
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    have = "has" if len(missing) == 1 else "have"
    return (
        f"no classes: {len(missing):,} of {len(names):,} images {have} no label, the first is {printable(missing[0])} "
        "(empty values, nan, lists and negative numbers are not labels); for classes every image needs one"
    )


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
                f"{printable(file)} may be the label of {printable(picture)} or of {_listed(partners.rivals)}: they "
                "share their name up to the first dot; give each picture a label file of its own name "
                f"({printable(stem(picture))}.cls)"
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
    is_plain = not isinstance(value, list | dict) and printable(str(value)) == str(value)
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
    return ", ".join(map(printable, names[:3])) + (", ..." if names[3:] else "")
