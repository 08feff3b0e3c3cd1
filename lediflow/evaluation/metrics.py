"""The metrics of a set of images, each an entry of one table, and the row of results that they make.

The table `METRICS` is all that a metric consists of: its key, its name, which direction is better, how many digits are
worth showing, and how it is computed. Results, the terminal, table.md, the event log (hence W&B), the report and
`mode=compare` read it; adding a metric is adding an entry.

A distance is named after its features: "MMD (EfficientNet-Lite0)". Only on CLIP ViT-L/14@336 is it "CMMD", only on
Inception "FID" and "KID". The MMD uses unit-norm features, sigma 10 and a factor 1000, as CMMD does; the other metrics
use raw features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd_estimate
from lediflow.evaluation.config import MetricsConfig
from lediflow.evaluation.embedding import ChosenFeatures, FeatureSet
from lediflow.evaluation.features import CLIP, INCEPTION, display_name, unit
from lediflow.evaluation.frechet import FeatureStatistics, FeatureSums, feature_statistics, frechet_distance
from lediflow.evaluation.mmd import FEWEST, Estimate, Polynomial, estimate, kernel_sums
from lediflow.evaluation.neighbors import manifold_metrics, nearest_training
from lediflow.evaluation.references import Reference
from lediflow.evaluation.tiles import TILE, Rows

Row = dict[str, Any]
View = Literal["terminal", "table", "report"]
EVERYWHERE: frozenset[View] = frozenset({"terminal", "table", "report"})


class Influence(NamedTuple):
    """An estimate, and each image's influence on it (jackknife pseudo-value less the estimate)."""

    value: float
    x: Float[Tensor, " n"]  # generated images, by number
    y: Float[Tensor, " m"]  # real images, by number


class Values(NamedTuple):
    """The result of a metric: entries of the row, and influences for comparing two runs, if it has any."""

    row: Row
    influence: Influence | None = None


@dataclass(frozen=True)
class Sets:
    """Raw features of generated and of real images, this rank's share; all ranks compute each metric together."""

    made: Rows
    real: Rows
    features: str  # name of the extractor
    group: Group
    config: MetricsConfig

    @cached_property
    def manifold(self) -> dict[str, float] | None:
        """Precision, recall, density and coverage; None for too few images."""
        if min(self.real.total, self.made.total) <= self.config.neighbors:
            return None
        return manifold_metrics(self.real, self.made, self.group, self.config.neighbors)


class StreamedSets(NamedTuple):
    """Sums over both sets, equal on all ranks: what `metrics.estimator=streaming` computes from."""

    made: StreamingCMMD
    real: StreamingCMMD
    made_statistics: FeatureStatistics
    real_statistics: FeatureStatistics


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One entry of the table."""

    key: str  # in rows of results, which may also have KEY_name and KEY_interval
    name: str  # in headings
    direction: Literal["lower", "higher"]  # which is better
    digits: int  # after the decimal point, in the report and in comparisons
    # from both sets to the value, or to the value with more entries and influences; None: cannot be computed from these
    compute: Callable[[Sets], Values | float | None]
    # the same from sums; None: the metric is left out under metrics.estimator=streaming
    stream: Callable[[StreamedSets], Values] | None = None
    # features of which the metric has a name of its own, and that name; on others it is "NAME (FEATURES)"
    home: tuple[str, str] | None = None
    value_key: str = ""  # key of the value that views show, where it is not `key`
    logged: tuple[str, ...] = ()  # keys that the event log keeps besides `value_key`, before it or after it
    views: frozenset[View] = EVERYWHERE  # where it is shown; results and the event log have all

    @property
    def shown_key(self) -> str:
        return self.value_key or self.key

    def title(self, features: str) -> str:
        """The metric's name on these features."""
        if self.home is None:
            return self.name
        home, own = self.home
        return own if features == home else f"{self.name} ({display_name(features)})"

    def heading(self, row: Row) -> str:
        """The metric's name in a row of results."""
        return row.get(f"{self.key}_name", self.name)

    def value(self, row: Row) -> float | None:
        return row.get(self.shown_key)

    def entries(self, values: Values, features: str) -> Row:
        """The entries of a row of results: the metric's name, if it depends on the features, and its values."""
        named = {} if self.home is None else {f"{self.key}_name": self.title(features)}
        return named | values.row


def exact_mmd(sets: Sets) -> Values:
    found = cmmd_estimate(unit_rows(sets.made), unit_rows(sets.real), sets.group)
    row = mmd_entries(found) | {"estimator": "exact"}
    return Values(row, Influence(found.unbiased, found.influence_x, found.influence_y))


def mmd_entries(found: Estimate) -> Row:
    """The entries of an exact MMD in a row of results."""
    return {
        "mmd": found.biased,
        "mmd_unbiased": found.unbiased,
        "mmd_standard_error": found.standard_error,
        "mmd_interval": list(found.interval()),
    }


def streamed_mmd(sets: StreamedSets) -> Values:
    biased, unbiased = sets.made.distance(sets.real), sets.made.unbiased_distance(sets.real)
    row = {
        "mmd": biased.value,
        "mmd_unbiased": unbiased.value,
        "mmd_error_bound": unbiased.error_bound,
        "mmd_standard_error": sets.made.standard_error(sets.real),
        "mmd_interval": list(sets.made.interval(sets.real)),
        "estimator": "streaming",
    }
    return Values(row)


def exact_frechet(sets: Sets) -> float:
    real, made = (feature_statistics(rows, sets.group) for rows in (sets.real, sets.made))
    return frechet_distance(*real, *made)


def streamed_frechet(sets: StreamedSets) -> Values:
    return Values({"frechet": frechet_distance(*sets.real_statistics, *sets.made_statistics)})


def kernel_distance(sets: Sets) -> Values:
    """The unbiased kernel distance. No influences are kept: two runs are compared by the MMD."""
    found = estimate(kernel_sums(sets.made, sets.real, Polynomial(), sets.group))
    return Values({"kid": found.unbiased, "kid_interval": list(found.interval())})


def precision(sets: Sets) -> Values | None:
    if sets.manifold is None:
        return None
    return Values({"neighbors": sets.config.neighbors, "precision": sets.manifold["precision"]})


def from_manifold(key: str) -> Callable[[Sets], float | None]:
    return lambda sets: None if sets.manifold is None else sets.manifold[key]


MAIN = Metric(
    key="mmd", name="MMD", direction="lower", digits=2, compute=exact_mmd, stream=streamed_mmd, home=(CLIP, "CMMD"),
    value_key="mmd_unbiased", logged=("mmd", "mmd_unbiased", "mmd_standard_error"),
)  # fmt: skip
FRECHET = Metric(
    key="frechet", name="Fréchet distance", direction="lower", digits=1, compute=exact_frechet,
    stream=streamed_frechet, home=(INCEPTION, "FID"),
)  # fmt: skip
KID = Metric(
    key="kid", name="Kernel distance", direction="lower", digits=2, compute=kernel_distance, home=(INCEPTION, "KID"),
    views=frozenset({"table"}),
)  # fmt: skip
PRECISION = Metric(key="precision", name="precision", direction="higher", digits=2, compute=precision)
RECALL = Metric(key="recall", name="recall", direction="higher", digits=2, compute=from_manifold("recall"))
DENSITY = Metric(
    key="density", name="density", direction="higher", digits=2, compute=from_manifold("density"), views=frozenset()
)  # fmt: skip
COVERAGE = Metric(
    key="coverage", name="coverage", direction="higher", digits=2, compute=from_manifold("coverage"),
    views=frozenset(),
)  # fmt: skip
FIRST = (MAIN, FRECHET, KID, PRECISION, RECALL, DENSITY, COVERAGE)
METRICS: dict[str, Metric] = {metric.key: metric for metric in FIRST}


class Measurement(NamedTuple):
    """A row of results, and by metric the influences that two runs are compared by, with what both must share."""

    row: Row
    influences: dict[str, Influence]
    record: Row


def table_record() -> dict[str, list[str]]:
    """Which metrics a row was made with, for its fingerprint; nothing for the metrics that rows had from the start."""
    keys = list(METRICS)
    return {} if keys == [metric.key for metric in FIRST] else {"table": keys}


def logged_keys() -> list[str]:
    """The entries of a row that the event log keeps, in the order of the table."""
    return [key for metric in METRICS.values() for key in metric.logged or (metric.shown_key,)]


def shown_in(view: View) -> list[Metric]:
    return [metric for metric in METRICS.values() if view in metric.views]


def metric_name(key: str, features: str) -> str:
    """The metric's name on these features; ValueError for a key that is not in the table."""
    if key not in METRICS:
        raise ValueError(f"no metric {key!r}; there are {', '.join(map(repr, METRICS))}")
    return METRICS[key].title(features)


def measure(
    reference: Reference,
    samples: FeatureSet | ChosenFeatures,
    features: str,
    group: Group,
    device: torch.device | str,
    config: MetricsConfig,
) -> Measurement:
    """All metrics of the samples against the reference; the same bits on any number of ranks. All ranks call it."""
    if config.estimator == "streaming":
        return Measurement(streaming_row(reference, samples, features, group), {}, {})
    real, made = reference.rows(group, device), samples.rows(group, device)
    check_counts(real.total, made.total)
    sets = Sets(made, real, features, group, config)
    found = {key: as_values(key, metric.compute(sets)) for key, metric in METRICS.items()}
    row = assembled(found, features, real.total, made.total)
    row |= memorisation(reference, made, group, device)
    influences = {key: values.influence for key, values in found.items() if values and values.influence}
    record = {"reference": reference.fingerprint, "features": features, "count": samples.count}
    return Measurement(row, influences, record)


def as_values(key: str, found: Values | float | None) -> Values | None:
    return found if found is None or isinstance(found, Values) else Values({key: found})


def assembled(found: dict[str, Values | None], features: str, real: int, made: int) -> Row:
    """A row of results: distances, the number of images, then what is better when higher."""
    row: dict[str, Row] = {"lower": {}, "higher": {}}
    for key, values in found.items():
        if values is not None:
            row[METRICS[key].direction] |= METRICS[key].entries(values, features)
    counts = {"reference_images": real, "sample_images": made}
    return {"features": features} | row["lower"] | counts | row["higher"]


def check_counts(real: int, made: int) -> None:
    """UserError for fewer images than a distance with an interval needs."""
    if min(real, made) < FEWEST:
        raise UserError(
            f"found {real} real and {made} generated images; a distance and its interval need at least "
            f"{FEWEST} of each: raise count, or add pictures"
        )


def memorisation(reference: Reference, made: Rows, group: Group, device: torch.device | str) -> Row:
    """Whether samples are copies of training images; nothing if the run was not trained on the reference's images."""
    training = reference.training(group, device)
    if training is None or training.total < 2:
        return {}
    return {"nearest_training": nearest_training(training, reference.held_out(group, device), made, group)}


def unit_rows(rows: Rows) -> Rows:
    """The same rows in float64, each of length 1."""
    return rows._replace(values=unit(rows.values.double()))


def halves_mmd(reference: Reference, group: Group, device: torch.device | str) -> float | None:
    """The MMD between two halves of the real images, the level of a perfect model; None for too few images."""
    first, second = reference.halves(group, device)
    if min(first.total, second.total) < FEWEST:
        return None
    return cmmd_estimate(unit_rows(first), unit_rows(second), group).unbiased


def streaming_row(
    reference: Reference, samples: FeatureSet | ChosenFeatures, features: str, group: Group
) -> Row:
    """The metrics that sums suffice for. Features are read from their files one batch at a time."""
    real, real_raw = streamed(reference.batches, len(reference.chosen), reference.features.dim, group)
    made, made_raw = streamed(samples.batches, samples.count, samples.dim, group)
    sets = StreamedSets(made, real, made_raw, real_raw)
    found = {key: metric.stream(sets) if metric.stream else None for key, metric in METRICS.items()}
    return assembled(found, features, len(reference.chosen), samples.count)


def streamed(
    batches: Callable[[int], Iterator[tuple[int, Float[Tensor, "batch dim"]]]],
    count: int,
    dim: int,
    group: Group,
) -> tuple[StreamingCMMD, FeatureStatistics]:
    """Moments of the unit-norm features, and mean and covariance of the raw ones.

    All batches of a jackknife group are summed by one rank, in order, so the bits of the MMD do not depend on the
    number of ranks. Batches are small enough that every jackknife group gets some.
    """
    moments, raw = StreamingCMMD(dim), FeatureSums.zero(dim)
    size = min(TILE, -(-count // moments.groups))
    for number, batch in batches(size):
        if number % moments.groups % group.world_size == group.rank:
            moments.update(unit(batch.double()), piece=number)
            raw.add(batch)
    return moments.reduce(group), raw.statistics(group)
