"""A source of photographs is added by one entry of the table: `prepare` reads it, alone and in a folder of its kind."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness.commands import invoke, succeed

from lediflow.codecs import signal_to_bytes
from lediflow.data.shards.reader import ShardReader
from lediflow.data.sources.opening import KINDS, SourceKind
from lediflow.data.sources.protocol import DirectSource, Entry, Identity, file_identity

SIZE, COUNT = 16, 12
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE), dtype=np.uint8)
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801


@dataclass
class IdxImages(DirectSource):
    """Grey images in the IDX format of MNIST, with the classes of the label file next to it."""

    path: Path

    def identity(self) -> Identity:
        return file_identity(self.path)

    def entries(self) -> Iterator[Entry]:
        with self.path.open("rb") as stream:
            _, count, height, width = struct.unpack(">4I", stream.read(16))
        labels = self.path.with_name(self.path.name.replace("images.idx3", "labels.idx1")).read_bytes()[8:]
        for number in range(count):
            place = 16 + number * height * width
            yield Entry(f"{number:05d}.pgm", height * width, offset=place, label=labels[number])

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            return b"P5 %d %d 255\n" % (SIZE, SIZE) + stream.read(entry.bytes)


IDX = SourceKind(
    name="images in the IDX format",
    open=IdxImages,
    recognises=lambda path, head: head[:4] == struct.pack(">I", IMAGES_MAGIC),
    suffixes=(".idx3-ubyte",),
)


@pytest.fixture
def added(monkeypatch):
    """The table with one entry more, which this file makes."""
    monkeypatch.setitem(KINDS, "idx", IDX)


def write(folder: Path, name: str, pixels: np.ndarray) -> Path:
    """The two files of MNIST's format; the class of an image is its number modulo 3."""
    folder.mkdir(exist_ok=True)
    labels = bytes(number % 3 for number in range(len(pixels)))
    (folder / f"{name}-labels.idx1-ubyte").write_bytes(struct.pack(">2I", LABELS_MAGIC, len(labels)) + labels)
    path = folder / f"{name}-images.idx3-ubyte"
    path.write_bytes(struct.pack(">4I", IMAGES_MAGIC, *pixels.shape) + pixels.tobytes())
    return path


def prepare(source: Path, output: Path):
    return ("prepare", f"source={source}", f"output={output}", f"size={SIZE}", "mode=grey", "workers=1")


def images_in(shards: Path) -> dict[bytes, int]:
    """Pixels -> class of every sample of a set of shards."""
    reader = ShardReader.open(shards)
    samples = range(len(reader))
    pixels, labels = signal_to_bytes(reader.signals(samples).mean), reader.labels(samples)
    return {picture.numpy().tobytes(): int(label) for picture, label in zip(pixels, labels, strict=True)}


def test_its_pictures_and_classes_are_in_the_shards_to_the_byte(added, tmp_path):
    source = write(tmp_path / "mnist", "train", PIXELS)
    succeed(*prepare(source, tmp_path / "shards"))
    assert images_in(tmp_path / "shards") == {
        picture.tobytes(): number % 3 for number, picture in enumerate(PIXELS)
    }


def test_a_folder_of_such_files_is_a_source_and_a_changed_one_is_refused(added, tmp_path):
    for name, pixels in (("first", PIXELS[:6]), ("second", PIXELS[6:])):
        write(tmp_path / "set", name, pixels)
    succeed(*prepare(tmp_path / "set", tmp_path / "shards"))
    assert len(images_in(tmp_path / "shards")) == COUNT
    write(tmp_path / "set", "second", PIXELS[6:] ^ 1)
    said = invoke(*prepare(tmp_path / "set", tmp_path / "shards"))
    assert said.status == 2 and "was made from other files" in said.err


def test_a_path_without_a_source_names_every_kind(added, tmp_path):
    said = invoke(*prepare(tmp_path / "none", tmp_path / "shards"))
    assert said.status == 2 and all(kind.name in said.err for kind in KINDS.values())


def test_without_the_entry_the_file_is_refused(tmp_path):
    said = invoke(*prepare(write(tmp_path / "mnist", "train", PIXELS), tmp_path / "shards"))
    assert said.status == 2 and "cannot be read" in said.err
