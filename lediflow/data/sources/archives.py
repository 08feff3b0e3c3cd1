"""A folder of archives: webdataset's or img2dataset's tars, Hugging Face's Parquet files, or any mixture.

An image's name begins with its archive's. Archives are parts of one set, so their names are no classes.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lediflow.data.sources.protocol import Entry, Identity, Opened, Progress, Source
from lediflow.data.sources.unpacking import PackedArchive, unpacked


@dataclass
class Archives(Opened):
    """Archives by their paths below a folder."""

    members: dict[str, Opened]

    def identity(self) -> Identity:
        identities = {name: member.identity() for name, member in self.members.items()}
        digest = hashlib.sha256(json.dumps(identities, sort_keys=True).encode())
        return {"archives": len(self.members), "fingerprint": digest.hexdigest()}

    def ready(self, scratch: Path, progress: Progress | None = None) -> Source:
        packed = [member for member in self.members.values() if isinstance(member, PackedArchive)]
        tars = iter(unpacked(packed, scratch, progress))
        sources = [
            next(tars) if isinstance(member, PackedArchive) else member.ready(scratch)
            for member in self.members.values()
        ]
        return ArchivesSource(list(self.members), sources)


@dataclass
class ArchivesSource(Source):
    """Archives as one source."""

    names: list[str]
    sources: list[Source]

    def __post_init__(self) -> None:
        self.class_names = next((source.class_names for source in self.sources if source.class_names), None)

    def entries(self) -> Iterator[Entry]:
        for number, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            for entry in source.entries():
                yield entry._replace(name=f"{name}/{entry.name}", archive=number)

    def read(self, entry: Entry) -> bytes:
        return self.sources[entry.archive].read(entry._replace(name=self.inner_name(entry)))

    def inner_name(self, entry: Entry) -> str:
        return entry.name.removeprefix(f"{self.names[entry.archive]}/")
