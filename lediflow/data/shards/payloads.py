"""Which files of a tar that others wrote are its samples.

Every picture is one, except where webdataset's fields are meant: `x.seg.png` beside `x.jpg` is a field, and no picture
of its own, if every sample of the tar has a `.seg.png`. In `a.png, a.1.png` the second is a picture of its own, as is
any that has a label file of its own name. What is neither is refused, not guessed.
An array (`.npy`) is a sample where no picture shares its name up to the first dot.
"""

import re
from collections import Counter
from collections.abc import Sequence

from lediflow.data.sources.names import is_picture_name, shown, stem
from lediflow.data.sources.pairing import group, refuse_doubles
from lediflow.data.sources.protocol import SourceError

A_NUMBER = re.compile(r"[0-9][0-9._-]*")


def chosen_payloads(files: Sequence[str], label_files: Sequence[str]) -> list[str]:
    """The files that are samples, among the pictures and arrays of a tar. SourceError where that is unclear."""
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
    """What stands between the first dot and the suffix, unless it is a number that tells pictures apart."""
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
