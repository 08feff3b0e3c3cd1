"""Three files, a folder of them that counts what it is asked and may misbehave, and byte ranges."""

import threading
from pathlib import Path

from lediflow.data.storage.folders import LocalFolder, Read, Storage

CONTENTS = {"a.tar": bytes(range(256)) * 16, "b.tar": b"b" * 5000, "c.tar": b"c" * 3000}


class Watched(LocalFolder):
    """A folder that counts what is asked of it and may fail or hang the first times."""

    def __init__(self, folder: Path, failures=(), hang: threading.Event | None = None):
        super().__init__(folder)
        self.calls: list[tuple[str, str]] = []
        self.failures, self.hang = list(failures), hang

    def _asked(self, what, name):
        self.calls.append((what, name))
        if self.hang and len(self.calls) == 1:
            self.hang.wait()
        if self.failures:
            raise self.failures.pop(0)

    def read(self, name):
        self._asked("read", name)
        return super().read(name)

    def read_into(self, reads):
        self._asked("range", reads[0].name)
        super().read_into(reads)

    def copy_to(self, name, path):
        self._asked("copy", name)
        super().copy_to(name, path)


def part(storage: Storage, name: str, offset: int, length: int) -> bytes:
    """A byte range."""
    buffer = bytearray(length)
    storage.read_into([Read(name, offset, memoryview(buffer))])
    return bytes(buffer)
