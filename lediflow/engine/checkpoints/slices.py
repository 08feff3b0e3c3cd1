"""One rank's pieces of the logical state as a safetensors file (a slice), and the files of all ranks as one state.

Slices are written here by hand (8 bytes of length, a JSON header, raw numbers) instead of by safetensors' `save_file`,
which copies every tensor and holds the interpreter lock while it writes, so that training stops. The hash is
computed while writing. safetensors itself reads the files, only the range that is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lediflow.engine.protocol import Extent

EXTENTS, STEPS = "extents", "steps"  # keys of a slice's metadata
NAMES = {torch.float32: "F32", torch.float16: "F16"}
CHUNK = 2**24  # bytes of one write; other threads run between two writes


def slice_name(rank: int, ranks: int) -> str:
    return f"slice-{rank:05d}-of-{ranks:05d}.safetensors"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], chunk: int = CHUNK
) -> str:
    """Write CPU tensors, `chunk` bytes at a time, and flush them to the disk; returns the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in (_header(tensors, metadata), *map(bytes_of, tensors.values())):
            for start in range(0, len(block), chunk):
                part = block[start : start + chunk]
                file.write(part)
                digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at multiples of 8 bytes
    return memoryview(struct.pack("<Q", len(text)) + text)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor in memory order."""
    return memoryview(tensor.contiguous().flatten().numpy()).cast("B")  # type: ignore[arg-type]


def write_slice(path: Path, tensors: Mapping[str, Tensor], extents: Mapping[str, Extent], steps: int) -> str:
    """Write one rank's pieces; returns the file's SHA-256."""
    places = {key: [extents[key].start, *extents[key].shape] for key in tensors}
    return write_tensors(path, tensors, {EXTENTS: json.dumps(places), STEPS: str(steps)})


class SlicedState:
    """The whole state in the slices of a checkpoint; tensors are read on request. A StateReader.

    ValueError where the slices overlap, leave elements out, or come from different numbers of optimizer steps.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [safe_open(path, framework="pt") for path in paths]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.pieces: dict[str, list[tuple[int, int, int]]] = {}  # key -> (start, stop, number of the file)
        steps = set()
        for number, file in enumerate(self.files):
            metadata = file.metadata()
            steps.add(int(metadata[STEPS]))
            for key, (start, *shape) in json.loads(metadata[EXTENTS]).items():
                stop = start + math.prod(file.get_slice(key).get_shape())
                if self.shapes.setdefault(key, tuple(shape)) != tuple(shape):
                    raise ValueError(f"{key} is {self.shapes[key]} in one slice, {tuple(shape)} in another")
                self.pieces.setdefault(key, []).append((start, stop, number))
        if len(steps) > 1:
            raise ValueError(f"written after different numbers of optimizer steps, {sorted(steps)}")
        self.steps = max(steps, default=0)
        self._check()

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Elements [start, stop) of a flattened tensor."""
        stop = math.prod(self.shapes[key]) if stop is None else stop
        parts = [
            self.files[number].get_slice(key)[max(start, begin) - begin : min(stop, end) - begin]
            for begin, end, number in self.pieces[key]
            if max(start, begin) < min(stop, end)
        ]
        return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0), *parts])  # none: an empty range

    def whole(self, key: str) -> Tensor:
        """A tensor in its own shape."""
        return self.read(key).view(self.shapes[key])

    def _check(self) -> None:
        """Check that every element of every tensor is there exactly once."""
        for key, pieces in self.pieces.items():
            pieces.sort()
            reached = 0
            for begin, end, _ in pieces:
                if begin != reached:
                    raise ValueError(f"elements {min(begin, reached)} to {max(begin, reached)} of {key} are "
                                     f"{'missing' if begin > reached else 'there twice'}")  # fmt: skip
                reached = end
            if reached != math.prod(self.shapes[key]):
                raise ValueError(f"elements {reached} and following of {key} are missing")
