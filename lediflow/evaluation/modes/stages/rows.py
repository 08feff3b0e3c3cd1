"""A row of `mode=stages` for each source of z and solver setting: the MMD with its interval.

Neither time nor nearest neighbours are measured, and the sums over the reference are computed once, so a row costs
little more than generating its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lediflow.errors import UserError
from lediflow.evaluation.cmmd import cmmd_estimate
from lediflow.evaluation.embedding import ChosenFeatures, FeatureSet, Numbers, feature_set
from lediflow.evaluation.images import NumberedImages
from lediflow.evaluation.metrics import metric_name, unit_rows
from lediflow.evaluation.mmd import FEWEST, Estimate
from lediflow.evaluation.modes.rows import keep_row
from lediflow.evaluation.references import Reference
from lediflow.evaluation.related import Measure
from lediflow.evaluation.results import ROW_AGAIN, ROWS, digest, features_record
from lediflow.evaluation.session import Session
from lediflow.records import Record, read_record
from lediflow.sampling import SamplingConfig
from lediflow.text import steps_text

StageRow = dict[str, Any]
ALONE = "none"  # the solver of a row of the prior itself
ROW_TYPES = {
    "z": str,
    "solver": str,
    "steps": int,
    "nfe": float,
    "mmd_name": str,
    "mmd": float,
    "low": float,
    "high": float,
    "images": int,
}


@dataclass(frozen=True)
class LatentSource:
    """A source of z and the images generated from it."""

    name: str  # training | heldout | sampler | gaussian
    settings: Sequence[SamplingConfig]
    images: Callable[[SamplingConfig], NumberedImages]
    evaluations: Callable[[SamplingConfig], int]  # of the flow model for one image
    samples: Numbers | None = None  # the real sample of each image; None: it has none


@dataclass(frozen=True)
class StageRows:
    session: Session
    references: list[Reference]  # the main one first
    measure: Measure  # against it
    output: Path

    @classmethod
    def build(cls, session: Session, references: list[Reference], output: Path) -> StageRows:
        main = references[0]
        if len(main.chosen) < FEWEST:
            raise UserError(
                f"found {len(main.chosen)} real images, but a distance and its interval need {FEWEST} at least; give "
                "more"
            )
        return cls(session, references, Measure.build(main, session.group, session.device), output)

    def rows_for(self, source: LatentSource) -> list[StageRow]:
        """Rows in the order of the settings; rows that an earlier command finished are read."""
        return [self.row(source, config) for config in source.settings]

    def row(self, source: LatentSource, config: SamplingConfig) -> StageRow:
        group = self.session.group
        images = source.images(config)
        record = self.record(images)
        path = self.output / ROWS / f"{digest(record)}.json"
        if found := group.broadcast(read_stage_row(path) if group.is_first and path.exists() else None):
            return dict(found)
        features = self.features(source.name, images, config)
        row = {
            "z": source.name,
            "solver": config.solver if config.steps else ALONE,
            "steps": config.steps,
            "nfe": group.broadcast(source.evaluations(config) if group.is_first else None),
            **self.distance(self.measure(features, source.samples)),
            **counts(len(images), source.samples),
            "reference_images": len(self.references[0].chosen),
            "record": record,
        }
        keep_row(self.session, path, row, features)
        return row

    def record(self, images: NumberedImages) -> dict[str, Any]:
        """Everything that a row depends on."""
        about = features_record(images.record, self.session.extractor.record, len(images))
        return about | {"references": {self.references[0].name: self.references[0].fingerprint}}

    def features(self, name: str, images: NumberedImages, config: SamplingConfig) -> FeatureSet:
        command, extractor = self.session.command, self.session.extractor
        path = (
            self.output
            / "features"
            / f"{digest(features_record(images.record, extractor.record, len(images)))}.safetensors"
        )
        title = f"z={name}, " + (
            f"{config.solver}, {steps_text(config.steps)}" if config.steps else "the prior alone"
        )
        advance, close = self.session.progress(title, len(images))
        found = feature_set(
            path, images, extractor, self.session.group, batch_size=command.batch_size, advance=advance
        )
        close()
        return found

    def distance(self, estimate: Estimate) -> StageRow:
        """The MMD, unbiased, times 1000, with its 95 % interval."""
        low, high = estimate.interval()
        name = metric_name("mmd", self.session.extractor.name)
        return {"mmd_name": name, "mmd": estimate.unbiased, "low": low, "high": high}

    def facts(self) -> dict[str, Any]:
        """MMD between halves of the photographs; the codec's, where its reconstructions are a reference too."""
        session, main = self.session, self.references[0]
        found: dict[str, Any] = {
            "reference": {"name": main.name, "fingerprint": main.fingerprint, "images": len(main.chosen)},
            "real": None,
            "codec_floor": None,
        }
        first, second = main.halves(session.group, session.device)
        if min(first.total, second.total) >= FEWEST:
            found["real"] = self.distance(cmmd_estimate(unit_rows(first), unit_rows(second), session.group))
        for other in self.references[1:]:
            decoded = ChosenFeatures(other.features, main.chosen)
            found["codec_floor"] = self.distance(self.measure(decoded, main.chosen))
        return found


def counts(images: int, samples: Numbers | None) -> StageRow:
    """Number of images of a row; of images from real ones also the number of real ones and the most draws of each."""
    if samples is None:
        return {"images": images}
    real = len(np.unique(samples))
    return {"images": images, "real_images": real, "draws_of_each": -(-images // real)}


def read_stage_row(path: Path) -> Record:
    """Read a row that an earlier command wrote; RecordError where a field is missing or of another type."""
    return read_record(path, ROW_AGAIN, ROW_TYPES, is_complete=True)
