"""Features of numbered images: computed by all ranks, batch by batch, and kept on disk as they are computed.

Images 0 ... count - 1 are divided into pieces of one batch. Piece p is computed by rank p modulo the number of ranks
and written to a file of its own. So a command that was killed continues with the missing pieces, on any number of
ranks, and each piece is computed with the same shapes on whichever rank. Commands that compute the same set at the same
time share its pieces: the first to finish writes the set and removes them, and the others continue with that set.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from lediflow.disk import whole_or_absent
from lediflow.engine.group import Group
from lediflow.errors import UserError, disk_errors_explained
from lediflow.evaluation.features import FeatureExtractor
from lediflow.evaluation.images import NumberedImages
from lediflow.evaluation.results import digest, features_record, refuse_other
from lediflow.evaluation.tiles import Rows, share
from lediflow.records import UNREADABLE, RecordError

Numbers = Int64[np.ndarray, " images"]
FEATURES, FINGERPRINT = "features", "fingerprint"


@dataclass(frozen=True)
class Pieces:
    """The files of a set of features while it is computed."""

    folder: Path
    count: int
    batch_size: int
    whole: Path  # the finished set; the command that writes it removes the pieces

    @property
    def are_superseded(self) -> bool:
        """Whether another command has written the whole set in the meantime."""
        return self.whole.is_file()

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def numbers(self, piece: int) -> range:
        """The numbers of the images in a piece."""
        return range(piece * self.batch_size, min((piece + 1) * self.batch_size, self.count))

    def path(self, piece: int) -> Path:
        numbers = self.numbers(piece)
        return self.folder / f"{numbers.start:08d}-{numbers.stop:08d}.safetensors"

    def mine(self, group: Group) -> list[int]:
        """The pieces that this rank computes, finished or not."""
        return list(range(group.rank, len(self), group.world_size))

    def write(self, piece: int, features: Float[Tensor, "batch dim"]) -> None:
        """Write a piece, unless the set is finished and the folder was removed meanwhile."""
        try:
            with whole_or_absent(self.path(piece)) as stream:
                stream.write(save({FEATURES: features.contiguous()}))
        except UserError:
            if not self.are_superseded:
                raise

    def read(self, piece: int) -> Float[Tensor, "batch dim"]:
        try:
            # one read of the whole file, since another command may remove it
            return load(self.path(piece).read_bytes())[FEATURES]
        except (OSError, SafetensorError, LookupError) as error:
            raise RecordError(
                f"{self.path(piece)} holds no features ({error}); delete it, and the same command makes it again"
            ) from error


def embed(
    pieces: Pieces,
    images: NumberedImages,
    extractor: FeatureExtractor,
    group: Group,
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Compute the missing pieces; returns when every rank has finished, or raises on all of them."""
    with group.together("extracting features") as others:
        for piece in pieces.mine(group):
            others()
            numbers = pieces.numbers(piece)
            if not (pieces.path(piece).is_file() or pieces.are_superseded):
                found = images(numbers)
                with exact_convolutions():
                    features = extractor(found)
                pieces.write(piece, checked(features, extractor.name, numbers).cpu())
            advance(len(numbers))


def exact_convolutions() -> AbstractContextManager[None]:
    """Full float32 precision on a GPU too (TF32 keeps 10 bits), and the same bits each time."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def checked(features: Float[Tensor, "batch dim"], name: str, numbers: range) -> Float[Tensor, "batch dim"]:
    """Refuse infinite or NaN features, which would spread to every distance."""
    is_broken = ~features.isfinite().all(dim=1)
    if is_broken.any():
        first = numbers[int(is_broken.nonzero()[0])]
        raise UserError(
            f"{name} gave features that are not finite for {int(is_broken.sum())} of images {numbers.start} to "
            f"{numbers.stop - 1}, the first of them image {first}; look at that image, and at the weights"
        )
    return features


class FeatureSet:
    """A finished set of features: one file, with the record (fingerprint) of what it was computed from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "pt") as file:
                self.fingerprint: dict[str, Any] = json.loads((file.metadata() or {}).get(FINGERPRINT, "{}"))
                self.count, self.dim = file.get_slice(FEATURES).get_shape()
        except (OSError, SafetensorError, *UNREADABLE) as error:
            raise RecordError(
                f"{path} holds no features ({error}); give another file, or delete it, and the same command makes it "
                "again"
            ) from error

    def slice(self, numbers: range) -> Float[Tensor, "some dim"]:
        with safe_open(self.path, "pt") as file:
            return file.get_slice(FEATURES)[numbers.start : numbers.stop]

    def rows(self, group: Group, device: torch.device | str = "cpu") -> Rows:
        """This rank's share of all rows."""
        mine = share(self.count, group.rank, group.world_size)
        return Rows(self.slice(mine).to(device), mine.start, self.count)

    def chosen(self, numbers: Numbers, group: Group, device: torch.device | str = "cpu") -> Rows:
        """This rank's share of the rows with these increasing numbers."""
        mine = share(len(numbers), group.rank, group.world_size)
        wanted = numbers[mine.start : mine.stop]
        found = self.at(wanted) if len(wanted) else torch.empty(0, self.dim)
        return Rows(found.to(device), mine.start, len(numbers))

    def batches(
        self, size: int, chosen: Numbers | None = None
    ) -> Iterator[tuple[int, Float[Tensor, "batch dim"]]]:
        """(number, rows) of each batch of the rows with these increasing numbers, or of all rows."""
        numbers = np.arange(self.count) if chosen is None else chosen
        for number, first in enumerate(range(0, len(numbers), size)):
            wanted = numbers[first : first + size]
            yield number, self.at(wanted)

    def at(self, wanted: Numbers) -> Float[Tensor, "some dim"]:
        """The rows with these numbers: increasing, at least one."""
        found = self.slice(range(int(wanted[0]), int(wanted[-1]) + 1))
        return found[torch.from_numpy(wanted - wanted[0])]


@dataclass(frozen=True)
class ChosenFeatures:
    """Some images of a set of features, as a set of their own."""

    features: FeatureSet
    numbers: Numbers  # of the images in the whole set, increasing

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def dim(self) -> int:
        return self.features.dim

    def slice(self, numbers: range) -> Float[Tensor, "some dim"]:
        return self.features.at(self.numbers[numbers.start : numbers.stop])

    def rows(self, group: Group, device: torch.device | str = "cpu") -> Rows:
        """This rank's share of all rows."""
        return self.features.chosen(self.numbers, group, device)

    def batches(self, size: int) -> Iterator[tuple[int, Float[Tensor, "batch dim"]]]:
        """(number, rows) of each batch."""
        return self.features.batches(size, self.numbers)


def gathered(pieces: Pieces, fingerprint: dict[str, Any], group: Group) -> FeatureSet:
    """Join the finished pieces into one file, unless another command already has, and remove the pieces."""
    with group.together("writing features"), disk_errors_explained(pieces.whole):
        if group.is_first:
            join(pieces, fingerprint)
            shutil.rmtree(pieces.folder, ignore_errors=True)  # another command may be removing them as well
    return open_checked(pieces.whole, fingerprint)


def join(pieces: Pieces, fingerprint: dict[str, Any]) -> None:
    """Write the whole set, unless another command has; RecordError where a piece is missing and there is no set."""
    if pieces.are_superseded:
        return
    try:
        features = torch.cat([pieces.read(piece) for piece in range(len(pieces))])
    except RecordError:
        if pieces.are_superseded:  # another command has finished the set since the check above
            return
        raise
    with whole_or_absent(pieces.whole) as stream:
        stream.write(save({FEATURES: features}, {FINGERPRINT: json.dumps(fingerprint)}))


def open_checked(path: Path, fingerprint: dict[str, Any]) -> FeatureSet:
    """Open the set at `path`; UserError if its fingerprint is another one."""
    found = FeatureSet(path)
    refuse_other(found.fingerprint, fingerprint, path)
    return found


def feature_set(
    path: Path,
    images: NumberedImages,
    extractor: FeatureExtractor,
    group: Group,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda images: None,
) -> FeatureSet:
    """The set at `path`: read if it has these images, refused if it has others, computed if there is none."""
    fingerprint = features_record(images.record, extractor.record, len(images))
    if group.broadcast(path.exists()):
        return open_checked(path, fingerprint)
    folder = path.with_name(f".{path.stem}-{digest(fingerprint)}.pieces")
    pieces = Pieces(folder, len(images), batch_size, path)
    embed(pieces, images, extractor, group, advance)
    return gathered(pieces, fingerprint, group)
