"""Which members of a tar that another program wrote are samples, and what the tar says about them.

Every picture is a sample, unless it is a field in webdataset's sense: `x.seg.png` beside `x.jpg` is a field if every
sample of the tar has a `.seg.png`. In `a.png, a.1.png` the second is a sample of its own, and so is any picture with a
label file of its own name. A tar where this is undecided is refused.
An array (`.npy`) is a sample if no picture shares its name up to the first dot.
"""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lediflow.data.sources.names import is_hidden, is_picture_name, shown, stem
from lediflow.data.sources.pairing import group, json_object, partners, refuse_doubles
from lediflow.data.sources.protocol import SourceError

CHUNK_BYTES = 2**20
ARRAY_EXTENSION = ".npy"
A_NUMBER = re.compile(r"[0-9][0-9._-]*")


def chosen_payloads(files: Sequence[str], label_files: Sequence[str]) -> list[str]:
    """The files that are samples, among the pictures and arrays of a tar; SourceError if that is ambiguous."""
    refuse_doubles(files)
    with_picture = {group(name) for name in files if is_picture_name(name)}
    payloads = [name for name in files if is_picture_name(name) or group(name) not in with_picture]
    labelled = set(map(stem, label_files))
    plain = {group(name) for name in payloads if stem(name) == group(name)}
    fields = {name: _field(name) for name in payloads if group(name) in plain and stem(name) not in labelled}
    counts = Counter(fields.values())
    for name, field in fields.items():
        if field and counts[field] < len(plain):
            raise SourceError(
                f"{shown(name)} may be a picture of its own or belong to {shown(group(name))}.*: {counts[field]} of "
                f"{len(plain)} samples have such a file; rename it without its first dot, or leave it out"
            )
    samples = [name for name in payloads if not fields.get(name)]
    _refuse_two_of_a_stem(samples)
    return samples


def _field(name: str) -> str:
    """The part between the first dot and the suffix; empty if it is a number, which only distinguishes pictures."""
    between = stem(name)[len(group(name)) + 1 :]
    return "" if A_NUMBER.fullmatch(between) else between


def _refuse_two_of_a_stem(samples: list[str]) -> None:
    first: dict[str, str] = {}
    for name in samples:
        if (other := first.setdefault(stem(name), name)) != name:
            raise SourceError(
                f"{shown(other)} and {shown(name)} are two pictures under one name, and which of them is the sample "
                "is unclear; leave one kind out, or rename it"
            )


def metadata_by_offset(stream: Any) -> dict[int, dict[str, Any]]:
    """The content of each sample's `.json` member, by the offset of the sample's payload in the tar."""
    offsets: dict[str, int] = {}
    about: dict[str, dict[str, Any]] = {}
    with as_stream(stream) as tar:
        for item, content in files_of_tar(tar):
            if is_payload_name(item.name):
                offsets[item.name] = item.offset_data
            elif item.name.lower().endswith(".json"):
                about[item.name] = json_object(content)
    found = partners(list(offsets), list(about))
    return {
        offset: {"source": stem(name)} | next((about[file] for file in found[name].files), {})
        for name, offset in offsets.items()
    }


def as_stream(file: Any) -> tarfile.TarFile:
    """Open a tar for reading from front to back."""
    return tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK_BYTES)


def files_of_tar(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every file with its content, and every link with empty content."""
    for item in tar:
        if is_link(item):
            yield item, b""
        elif item.isfile() and (stream := tar.extractfile(item)):
            yield item, stream.read()


def is_link(item: tarfile.TarInfo) -> bool:
    """Whether a member is a hard or symbolic link."""
    return item.islnk() or item.issym()


def is_payload_name(name: str) -> bool:
    """Whether a file may be a sample: a picture or an array."""
    return is_picture_name(name) or (name.lower().endswith(ARRAY_EXTENSION) and not is_hidden(name))
