"""The quality of a set of images, from features of it and of real photographs, in one pass over both.

A metric carries the name of its features: "MMD (EfficientNet-Lite0)". Only CLIP ViT-L/14@336 makes it "CMMD", only
Inception makes "FID" and "KID". MMD uses unit-norm features, sigma 10 and a factor 1000, as CMMD does; all others use
raw features. MMD, Fréchet and kernel distance: lower is better; precision, recall, density, coverage: higher.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lediflow.disk import whole_or_absent
from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd_estimate
from lediflow.evaluation.config import MetricsConfig
from lediflow.evaluation.distances.mmd import FEWEST, Polynomial, estimate, kernel_sums
from lediflow.evaluation.distances.tiles import TILE, Rows
from lediflow.evaluation.embedding import FeatureSet
from lediflow.evaluation.features import CLIP, INCEPTION, display_name, unit
from lediflow.evaluation.frechet import FeatureStatistics, FeatureSums, feature_statistics, frechet_distance
from lediflow.evaluation.neighbors import manifold_metrics, nearest_training
from lediflow.evaluation.references import Reference
from lediflow.records import UNREADABLE, RecordError

X, Y = "influence_x", "influence_y"
NAMES = {
    "mmd": ("MMD", CLIP, "CMMD"),
    "frechet": ("Fréchet distance", INCEPTION, "FID"),
    "kid": ("Kernel distance", INCEPTION, "KID"),
}


@dataclass(frozen=True)
class Measured:
    """One run's unbiased MMD with what each image contributes to its uncertainty."""

    unbiased: float
    influence_x: Float[Tensor, " n"]  # of each sample, by number
    influence_y: Float[Tensor, " m"]  # of each photograph, by number
    record: dict[str, Any]  # what two runs must share to be compared: reference, features, seed, count

    def save(self, path: Path) -> None:
        metadata = {"unbiased": json.dumps(self.unbiased), "record": json.dumps(self.record)}
        tensors = {X: self.influence_x.contiguous(), Y: self.influence_y.contiguous()}
        with whole_or_absent(path) as stream:
            stream.write(save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> Measured:
        if not path.exists():
            raise UserError(f"there is no {path} to compare with; evaluate that run first")
        try:
            with safe_open(path, "pt") as file:
                metadata = {key: json.loads(value) for key, value in file.metadata().items()}
                return cls(metadata["unbiased"], file.get_tensor(X), file.get_tensor(Y), metadata["record"])
        except (OSError, SafetensorError, *UNREADABLE, LookupError, AttributeError) as error:
            raise RecordError(
                f"{path} cannot be read ({error}); delete it and its row, {path.stem}.json, and evaluate that run again"
            ) from error


class Metrics(NamedTuple):
    """A row of results, and the exact MMD with every image's influence on it (what runs are compared by)."""

    row: dict[str, Any]
    estimate: Measured | None


def metric_name(metric: str, features: str) -> str:
    """What the metric ("mmd", "frechet" or "kid") is called on these features."""
    if metric not in NAMES:
        raise ValueError(f"no metric {metric!r}; there are {', '.join(map(repr, NAMES))}")
    generic, home, own = NAMES[metric]
    return own if features == home else f"{generic} ({display_name(features)})"


def measure(
    reference: Reference,
    samples: FeatureSet,
    features: str,
    group: Group,
    device: torch.device | str,
    config: MetricsConfig,
) -> Metrics:
    """Everything about the samples against the reference; the same on any number of ranks."""
    if config.estimator == "streaming":
        return Metrics(streaming_row(reference, samples, features, group), None)
    real, made = reference.rows(group, device), samples.rows(group, device)
    check_counts(real.total, made.total)
    row, measured = distances(real, made, features, group)
    row |= neighborhoods(real, made, group, config.neighbors)
    row |= memorisation(reference, made, group, device)
    measured.record.update({"reference": reference.fingerprint, "features": features, "count": samples.count})
    return Metrics(row, measured)


def check_counts(real: int, made: int) -> None:
    if min(real, made) < FEWEST:
        raise UserError(
            f"found {real} real and {made} generated images; a distance and its interval need at least "
            f"{FEWEST} of each: raise count, or add pictures"
        )


def distances(real: Rows, made: Rows, features: str, group: Group) -> tuple[dict[str, Any], Measured]:
    """MMD, Fréchet and kernel distance."""
    mmd = cmmd_estimate(unit_rows(made), unit_rows(real), group)
    kid = estimate(kernel_sums(made, real, Polynomial(), group))
    frechet = frechet_distance(*feature_statistics(real, group), *feature_statistics(made, group))
    row = {
        "features": features,
        "mmd_name": metric_name("mmd", features),
        "mmd": mmd.biased,
        "mmd_unbiased": mmd.unbiased,
        "mmd_standard_error": mmd.standard_error,
        "mmd_interval": list(mmd.interval()),
        "estimator": "exact",
        "frechet_name": metric_name("frechet", features),
        "frechet": frechet,
        "kid_name": metric_name("kid", features),
        "kid": kid.unbiased,
        "kid_interval": list(kid.interval()),
        "reference_images": real.total,
        "sample_images": made.total,
    }
    return row, Measured(mmd.unbiased, mmd.influence_x, mmd.influence_y, {})


def neighborhoods(real: Rows, made: Rows, group: Group, neighbors: int) -> dict[str, Any]:
    """Precision, recall, density and coverage, where there are images enough for them."""
    if min(real.total, made.total) <= neighbors:
        return {}
    return {"neighbors": neighbors} | manifold_metrics(real, made, group, neighbors)


def memorisation(
    reference: Reference, made: Rows, group: Group, device: torch.device | str
) -> dict[str, Any]:
    """Whether samples are copies of what the run was trained on, if it was trained on the reference's images."""
    training = reference.training(group, device)
    if training is None or training.total < 2:
        return {}
    return {"nearest_training": nearest_training(training, reference.held_out(group, device), made, group)}


def unit_rows(rows: Rows) -> Rows:
    return rows._replace(values=unit(rows.values.double()))


def halves_mmd(reference: Reference, group: Group, device: torch.device | str) -> float | None:
    """The MMD between two halves of the real images: what no model needs to beat."""
    first, second = reference.halves(group, device)
    if min(first.total, second.total) < FEWEST:
        return None
    return cmmd_estimate(unit_rows(first), unit_rows(second), group).unbiased


def streaming_row(reference: Reference, samples: FeatureSet, features: str, group: Group) -> dict[str, Any]:
    """What moments tell: MMD and Fréchet distance. Features are read from their files a batch at a time."""
    real, real_raw = streamed(reference.batches, len(reference.chosen), reference.features.dim, group)
    made, made_raw = streamed(samples.batches, samples.count, samples.dim, group)
    biased, unbiased = made.distance(real), made.unbiased_distance(real)
    return {
        "features": features,
        "mmd_name": metric_name("mmd", features),
        "mmd": biased.value,
        "mmd_unbiased": unbiased.value,
        "mmd_error_bound": unbiased.error_bound,
        "mmd_standard_error": made.standard_error(real),
        "mmd_interval": list(made.interval(real)),
        "estimator": "streaming",
        "frechet_name": metric_name("frechet", features),
        "frechet": frechet_distance(*real_raw, *made_raw),
        "reference_images": len(reference.chosen),
        "sample_images": samples.count,
    }


def streamed(
    batches: Callable[[int], Iterator[tuple[int, Float[Tensor, "batch dim"]]]],
    count: int,
    dim: int,
    group: Group,
) -> tuple[StreamingCMMD, FeatureStatistics]:
    """Moments of the unit features, and mean and covariance of the raw ones, from batches of a size.

    A group of batches is always one rank's, in order, so the MMD's bits do not depend on the number of ranks. Few
    images come in batches so small that the jackknife has groups enough.
    """
    moments, raw = StreamingCMMD(dim), FeatureSums.zero(dim)
    size = min(TILE, -(-count // moments.groups))
    for number, batch in batches(size):
        if number % moments.groups % group.world_size == group.rank:
            moments.update(unit(batch.double()), piece=number)
            raw.add(batch)
    return moments.reduce(group), raw.statistics(group)
