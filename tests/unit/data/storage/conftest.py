"""The folder of three files that storages are tested on."""

from pathlib import Path

import pytest
from harness.storages import CONTENTS


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of 4,096, 5,000 and 3,000 bytes."""
    path = tmp_path / "set"
    path.mkdir()
    for name, content in CONTENTS.items():
        (path / name).write_bytes(content)
    return path
