"""A folder of archives: webdataset's or img2dataset's tars, Hugging Face's Parquet files, or any mixture.

An image's name begins with its archive's. Archives are parts of one set, so their names are no classes.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.data.sources.class_notes import shown_classes
from lediflow.data.sources.protocol import Entry, Identity, Opened, Progress, Source, SourceError
from lediflow.data.sources.unpacking import PackedArchive, unpacked


@dataclass
class Archives(Opened):
    """Archives by their paths below a folder."""

    members: dict[str, Opened]
    others: list[str]  # files that are no archives

    def identity(self) -> Identity:
        identities = {name: member.identity() for name, member in self.members.items()}
        records = {name: identity.record for name, identity in identities.items()}
        times = {name: identity.modified for name, identity in identities.items()}
        return Identity(
            {"archives": len(self.members), "fingerprint": _digest(records)},
            _digest(times),
            newest=max(identity.newest for identity in identities.values()),
        )

    def ready(self, scratch: Path, progress: Progress | None = None) -> Source:
        packed = [member for member in self.members.values() if isinstance(member, PackedArchive)]
        tars = iter(unpacked(packed, scratch, progress))
        sources = [
            next(tars) if isinstance(member, PackedArchive) else member.ready(scratch)
            for member in self.members.values()
        ]
        return ArchivesSource(list(self.members), sources, self.others)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class ArchivesSource(Source):
    """Archives as one source."""

    names: list[str]
    sources: list[Source]
    others: list[str]

    def __post_init__(self) -> None:
        named = {
            name: source.class_names
            for name, source in zip(self.names, self.sources, strict=True)
            if source.class_names
        }
        first = next(iter(named), "")
        for name, class_names in named.items():
            if class_names != named[first]:
                raise SourceError(
                    f"{first} and {name} number different classes ({shown_classes(named[first])}; "
                    f"{shown_classes(class_names)}), so that one label means two things; prepare them one by one"
                )
        self.class_names = named.get(first)

    def entries(self) -> Iterator[Entry]:
        yield from (Entry(name, 0) for name in self.others)
        for number, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            for entry in source.entries():
                yield entry._replace(name=f"{name}/{entry.name}", archive=number)

    def read(self, entry: Entry) -> bytes:
        return self.sources[entry.archive].read(entry._replace(name=self.inner_name(entry)))

    def inner_name(self, entry: Entry) -> str:
        return entry.name.removeprefix(f"{self.names[entry.archive]}/")
