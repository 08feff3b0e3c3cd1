"""The real images that generated ones are compared with: their features, and which of them took part in training.

Features are computed once and kept in a file with a fingerprint: data index, codec, image size, preprocessing, weights
of the extractor, number of images. Runs on latents have two references: the photographs, and their reconstructions by
the codec, the best that a model of its latents can reach. The distance between the two is the codec's floor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lediflow.codecs.protocol import describe_codec
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import is_held_out, spread_over
from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.embedding import FeatureSet, Numbers, feature_set
from lediflow.evaluation.images import NumberedImages, ShardImages
from lediflow.evaluation.results import digest, features_record
from lediflow.evaluation.session import Session
from lediflow.evaluation.tiles import Rows
from lediflow.sampling import LeDiFlowPipeline
from lediflow.text import shown_hash

SPLITS = ("all", "train", "heldout")


@dataclass(frozen=True)
class Reference:
    """Features of real images by number, and which of them metrics are computed against."""

    name: str  # photographs | reconstructions
    features: FeatureSet
    chosen: Numbers  # numbers of the images that samples are compared with
    is_held_out: Bool[np.ndarray, " images"] | None  # for all images; None: the run was not trained on them

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the reference depends on."""
        chosen = hashlib.sha256(self.chosen.tobytes()).hexdigest()
        return digest(self.features.fingerprint | {"chosen": chosen})

    def rows(self, group: Group, device: torch.device | str) -> Rows:
        return self.features.chosen(self.chosen, group, device)

    def batches(self, size: int) -> Iterator[tuple[int, Float[Tensor, "batch dim"]]]:
        """Numbered batches of the chosen features, for a single pass over them."""
        return self.features.batches(size, self.chosen)

    def training(self, group: Group, device: torch.device | str) -> Rows | None:
        """Features of the images that the run was trained on."""
        return self._part(False, group, device)

    def held_out(self, group: Group, device: torch.device | str) -> Rows | None:
        """Features of the images that training held out."""
        return self._part(True, group, device)

    def halves(self, group: Group, device: torch.device | str) -> tuple[Rows, Rows]:
        """Images of even and of odd place: two sets that differ only by chance."""
        first, second = (self.features.chosen(self.chosen[start::2], group, device) for start in (0, 1))
        return first, second

    def _part(self, held_out: bool, group: Group, device: torch.device | str) -> Rows | None:
        if self.is_held_out is None:
            return None
        numbers = np.flatnonzero(self.is_held_out == held_out)
        return self.features.chosen(numbers, group, device) if len(numbers) else None


def chosen_numbers(split: str, is_held_out: Bool[np.ndarray, " images"] | None, count: int) -> Numbers:
    """Numbers of the images of a split (data.split); UserError if the run has no such split."""
    if split not in SPLITS:
        raise UserError(f"data.split={split} is not known; choose one of {', '.join(SPLITS)}")
    if split == "all":
        return np.arange(count)
    if is_held_out is None or not is_held_out.any():
        raise UserError(
            f"data.split={split}, but the run was not trained on a part of these images (data.held_out_fraction of its "
            "training); use data.split=all"
        )
    return np.flatnonzero(is_held_out == (split == "heldout"))


def open_shards(session: Session, path: str) -> ShardReader:
    """Open shards on every rank; rank 0 first, since it may have to index foreign tars for all."""
    with session.group.together(f"opening {path}"):
        if session.group.is_first:
            ShardReader.open(path)
    return ShardReader.open(path)


def references(session: Session, pipeline: LeDiFlowPipeline, facts: dict[str, Any]) -> list[Reference]:
    """The references of a run, the main one first. `facts` are those of the run's export."""
    data = session.command.data
    reader = open_shards(session, data.path)
    check_signals(reader, facts, data.path)
    is_exact = reader.index.contents.kind == "images" or not _is_lossy(reader)
    if is_exact and data.photographs:
        raise UserError(
            f"data.photographs={data.photographs}, but {data.path} holds the pixels themselves; leave it out"
        )
    samples = reference_samples(reader, session.command.reference_count)
    if len(samples) < session.command.reference_count:
        session.note(
            f"reference_count={session.command.reference_count}: {data.path} has {len(reader)} images; all are used"
        )
    labels = pipeline.class_numbers(session.command) if session.command.labels else []
    if absent := absent_classes(labels, reader.index.table["label"][samples]):
        session.note(absent)
    trained = facts["data"].get("classes") or []
    if other := other_names(labels, trained, reader.index.contents.classes or []):
        session.note(other)
    held_out = held_out_samples(reader, facts, samples)
    decoded = ShardImages(reader, samples, pipeline.decode, pipeline.device)
    sets = {"photographs" if is_exact else "reconstructions": decoded}
    if data.photographs:
        photographs = open_shards(session, data.photographs)
        check_source(reader, photographs, data.path, data.photographs)
        sets = {"photographs": ShardImages(photographs, samples)} | sets
    elif not is_exact:
        session.note(
            f"{data.path} holds latents: the reference is their reconstructions, not the photographs; give the "
            "photographs' shards as data.photographs=SHARDS to measure against both"
        )
    return [
        Reference(
            name,
            reference_features(session, images, name, session.command.statistics if place == 0 else None),
            chosen_numbers(data.split, held_out, len(samples)),
            held_out,
        )
        for place, (name, images) in enumerate(sets.items())
    ]


def absent_classes(labels: Sequence[int], found: Int[np.ndarray, " samples"]) -> str:
    """What to know where generated images are of fewer classes than the reference; "" if they are not."""
    present = {*found.tolist()} - {-1}
    if not labels or not present - {*labels}:
        return ""
    return (
        f"labels={[*labels]} generates {len(present & {*labels})} of the {len(present)} classes of the reference, so "
        "the distances count the others as missing; to judge these classes alone, give shards that hold no others"
    )


def other_names(labels: Sequence[int], trained: Sequence[str], found: Sequence[str]) -> str:
    """What to know where the reference's classes have other names than those of the training; "" if none has."""
    known = [label for label in labels if label < min(len(trained), len(found))]
    differing = [label for label in known if trained[label] != found[label]]
    if not differing:
        return ""
    first = differing[0]
    return (
        f"labels={[*labels]}: the reference has other names for classes than the training ({first} is {found[first]}, "
        f"was {trained[first]}); give shards with the classes of the training"
    )


def seen_held_out(name: str, model: Mapping[str, Any], flow: Mapping[str, Any]) -> str:
    """What to know where a model was trained on images that the flow held out, from `data` of both exports."""
    theirs, own = (data.get("held_out_fraction") or 0.0 for data in (model, flow))
    if flow.get("fingerprint") != model.get("fingerprint") or theirs >= own:
        return ""
    return (
        f"the {name} was trained with data.held_out_fraction={theirs:g}, the flow with {own:g}: images that the flow "
        f"held out are training images of the {name}, so they do not measure what is new; train both with the same "
        "fraction"
    )


def reference_features(
    session: Session, images: NumberedImages, name: str, path: str | None = None
) -> FeatureSet:
    """Features of real images, computed once and kept at `path`, or in the cache among the runs."""
    record = features_record(images.record, session.extractor.record, len(images))
    cache = session.runs / "cache" / f"reference-{digest(record)}.safetensors"
    advance, close = session.progress(f"features of {name}", len(images))
    found = feature_set(
        Path(path) if path else cache,
        images,
        session.extractor,
        session.group,
        batch_size=session.command.batch_size,
        advance=advance,
    )
    close()
    return found


def reference_samples(reader: ShardReader, most: int) -> Numbers:
    """At most `most` samples (0: all), evenly spaced: tars of other programs may be in the order of their classes."""
    return spread_over(np.arange(len(reader)), most or len(reader))


def held_out_samples(
    reader: ShardReader, facts: dict[str, Any], samples: Numbers
) -> Bool[np.ndarray, " samples"] | None:
    """Which of the samples training held out; None if the run was trained on other data."""
    trained = facts["data"]
    if trained["fingerprint"] != reader.index.fingerprint:
        return None
    return is_held_out(reader.index.table["key"][samples], trained["held_out_fraction"])


def check_signals(reader: ShardReader, facts: dict[str, Any], path: str) -> None:
    """UserError for shards with samples of another codec or size than the run generates."""
    contents = reader.index.contents
    found = describe_codec(contents.codec or {"name": "pixels"}), contents.signal_shape[-1]
    made = describe_codec(facts["codec"]), facts["image_size"]
    if found != made:
        raise UserError(
            f"data.path={path} holds {found[0]} of side {found[1]}, the run makes {made[0]} of side {made[1]}; "
            "give shards that were prepared and encoded as those it was trained on (photographs of latents are given "
            "as data.photographs)"
        )


def check_source(latents: ShardReader, photographs: ShardReader, path: str, photographs_path: str) -> None:
    """UserError for photographs other than those that the latents were encoded from."""
    made_from, found = latents.index.contents.made_from.get("images"), photographs.index.fingerprint
    if made_from != found:
        raise UserError(
            f"data.photographs={photographs_path} ({shown_hash(found)}) are not what the latents in {path} were made "
            f"from ({shown_hash(made_from)}); give the folder that lediflow.encode had as its source"
        )


def _is_lossy(reader: ShardReader) -> bool:
    codec = reader.index.contents.codec
    return codec is not None and codec["name"] != "pixels"
