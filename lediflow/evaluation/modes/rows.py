"""A row of results for each setting of a run's sampler: its metrics against every reference, and its cost.

A finished row is kept in `rows/` in the output folder, under the fingerprint of all that it depends on, with the
influence of every image on the metrics (for `mode=compare`). A command that was killed, or that asks for more rows,
continues from there. Only the cost depends on the runtime, so that alone is measured again for another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.disk import write_json
from lediflow.engine.ranks import device_name
from lediflow.evaluation.config import MetricsConfig
from lediflow.evaluation.cost import evaluations_per_image, stage_costs
from lediflow.evaluation.embedding import ChosenFeatures, FeatureSet, feature_set
from lediflow.evaluation.images import GeneratedImages, NumberedImages
from lediflow.evaluation.metrics import FIRST, METRICS, halves_mmd, measure, mmd_entries, table_record
from lediflow.evaluation.modes.compare import write_influences
from lediflow.evaluation.references import Reference, seen_held_out
from lediflow.evaluation.related import Measure
from lediflow.evaluation.results import ROWS, digest, features_record, read_row
from lediflow.evaluation.session import Session
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.text import steps_text


class Run(NamedTuple):
    """A flow run and, if its prior is learned, the run of its latent sampler."""

    name: str
    flow: str
    sampler: str | None

    @property
    def facts(self) -> dict[str, Any]:
        return RunFolder(Path(self.flow)).exported_facts()


@dataclass(frozen=True)
class RowMaker:
    """Measures the rows of a run, or reads those that exist."""

    session: Session
    name: str  # of the run
    pipeline: LeDiFlowPipeline
    models: dict[str, Any]  # hashes of the weights, and the codec
    references: list[Reference]  # the main one first
    output: Path

    @classmethod
    def build(
        cls, session: Session, run: Run, pipeline: LeDiFlowPipeline, references: list[Reference], output: Path
    ) -> RowMaker:
        if run.sampler:
            sampler = RunFolder(Path(run.sampler)).exported_facts()
            if seen := seen_held_out("sampler", sampler.get("data") or {}, run.facts.get("data") or {}):
                session.note(seen)
        models = session.models.hashes(run.flow, run.sampler) | {"codec": run.facts["codec"]}
        return cls(session, run.name, pipeline, models, references, output)

    def rows(self, configs: Sequence[SamplingConfig]) -> list[dict[str, Any]]:
        """Rows in the order of the settings."""
        return [self.row(config) for config in configs]

    def row(self, config: SamplingConfig) -> dict[str, Any]:
        """The row of a setting, read if an earlier command finished it."""
        command, group = self.session.command, self.session.group
        images = GeneratedImages(self.pipeline, config, command.count, self.models)
        record = self.record(images)
        path = self.output / ROWS / f"{digest(record)}.json"
        if found := group.broadcast(self.finished(path)):
            return {"run": self.name} | self.timed_as_run(found, config, path)
        features = self.features(images, config)
        row = (
            settings(config) | self.costs(config) | self.quality(features, config, path) | {"record": record}
        )
        keep_row(self.session, path, row, features)
        return {"run": self.name} | row

    def finished(self, path: Path) -> dict[str, Any] | None:
        """A row that an earlier command finished, if its influences are there too."""
        is_exact = self.session.command.metrics.estimator != "streaming"
        if not path.exists() or (is_exact and not path.with_suffix(".safetensors").exists()):
            return None
        return read_row(path, lacking={metric.key for metric in FIRST} - {*METRICS})

    def timed_as_run(self, row: dict[str, Any], config: SamplingConfig, path: Path) -> dict[str, Any]:
        """A finished row; its cost is measured again if that of another runtime was measured."""
        if is_timed_by(row, self.pipeline):
            return row
        found = row | self.costs(config)
        with self.session.group.together(f"writing {path}"):
            if self.session.group.is_first:
                write_json(path, found)
        return found

    def record(self, images: NumberedImages) -> dict[str, Any]:
        """All that a row depends on: the images, the references, the metrics, the device that is timed."""
        session = self.session
        return features_record(images.record, session.extractor.record, len(images)) | {
            "references": {reference.name: reference.fingerprint for reference in self.references},
            "metrics": asdict(session.command.metrics),
            "timed": {"device": device_name(session.device), "batch": session.command.timed_batch},
            **table_record(),
        }

    def features(self, images: GeneratedImages, config: SamplingConfig) -> FeatureSet:
        """Features of the images that these settings generate."""
        command, extractor = self.session.command, self.session.extractor
        record = features_record(images.record, extractor.record, len(images))
        path = self.output / "features" / f"{digest(record)}.safetensors"
        advance, close = self.session.progress(title(self.name, config), len(images))
        found = feature_set(
            path, images, extractor, self.session.group, batch_size=command.batch_size, advance=advance
        )
        close()
        return found

    def quality(self, features: FeatureSet, config: SamplingConfig, path: Path) -> dict[str, Any]:
        """Metrics against every reference; the influences on those against the main one are written to a file."""
        session = self.session
        options: MetricsConfig = session.command.metrics
        measured = [
            measure(reference, features, session.extractor.name, session.group, session.device, options)
            for reference in self.references
        ]
        main, others = measured[0], measured[1:]
        with session.group.together(f"writing {path}"):
            if session.group.is_first and main.influences:
                record = main.record | {"seed": config.seed}
                write_influences(path.with_suffix(".safetensors"), main.influences, record)
        against_others = {
            f"against_{reference.name}": other.row
            for reference, other in zip(self.references[1:], others, strict=True)
        }
        return {"reference": self.references[0].name} | main.row | against_others

    def costs(self, config: SamplingConfig) -> dict[str, Any]:
        """Milliseconds and evaluations per image, measured by rank 0."""
        group, command = self.session.group, self.session.command
        found: dict[str, Any] | None = None
        with group.together("measuring the cost"):
            if group.is_first:
                cost = stage_costs(self.pipeline, config, batch_size=command.timed_batch)
                batch = cost[f"batch_{command.timed_batch}"]
                found = {
                    "nfe": evaluations_per_image(config, lambda number: self.pipeline([number], config).nfe),
                    "ms_per_image": batch["total"],
                    "cost": cost,
                    "runtime": self.pipeline.runtime.name,
                }
        return group.broadcast(found)

    def facts(self) -> dict[str, Any]:
        """Facts about the references: the MMD between photographs, and the codec's floor for runs on latents."""
        session = self.session
        main, others = self.references[0], self.references[1:]
        found: dict[str, Any] = {
            "reference": {"name": main.name, "fingerprint": main.fingerprint, "images": len(main.chosen)},
            "real_mmd": halves_mmd(main, session.group, session.device),
            "prior_widening": self.pipeline.width.added,
            "prior_scale": self.pipeline.width.scale,
        }
        for other in others:
            found["codec_floor"] = self.floor(main, other)
        return found

    def floor(self, photographs: Reference, reconstructions: Reference) -> dict[str, Any]:
        """The MMD of the codec's reconstructions of the reference's photographs; all metrics where they are streamed.

        A reconstruction is similar to its photograph, so these pairs are left out of the exact MMD. The others cannot
        leave them out; nor is a reconstruction compared with its photograph as if it might be a copy.
        """
        session = self.session
        group, device, metrics = session.group, session.device, session.command.metrics
        decoded = ChosenFeatures(reconstructions.features, photographs.chosen)
        if metrics.estimator == "exact":
            distance = Measure.build(photographs, group, device)(decoded, photographs.chosen)
            count = len(photographs.chosen)
            return {"sample_images": count, "reference_images": count} | mmd_entries(distance)
        row = measure(photographs, decoded, session.extractor.name, group, device, metrics).row
        row.pop("nearest_training", None)
        return row


def is_timed_by(row: Mapping[str, Any], pipeline: LeDiFlowPipeline) -> bool:
    """Whether a row's cost is that of the pipeline's runtime; False for rows of earlier releases, which name none."""
    return row.get("runtime") == pipeline.runtime.name


def settings(config: SamplingConfig) -> dict[str, Any]:
    """The settings that identify a row among those of a run."""
    return {
        "solver": config.solver,
        "steps": config.steps,
        "temperature": config.temperature,
        "seed": config.seed,
    }


def title(name: str, config: SamplingConfig) -> str:
    """Title of the progress bar."""
    return f"{name}, {config.solver}, {steps_text(config.steps)}, temperature {config.temperature:g}"


def keep_row(session: Session, path: Path, row: dict[str, Any], features: FeatureSet) -> None:
    """Write a row on rank 0, and remove the features of its images unless `keep_features` is set."""
    with session.group.together(f"writing {path}"):
        if session.group.is_first:
            write_json(path, row)
            if not session.command.keep_features:
                features.path.unlink()
                remove_if_empty(features.path.parent)


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
