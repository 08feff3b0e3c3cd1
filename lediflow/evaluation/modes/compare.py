"""`mode=compare`: is one run better than another? A comparison of finished results, paired by image number.

Rows of the same solver, steps and temperature are compared. Both runs are measured against the same photographs, and
image i of both starts from the same noise. What the two estimates share cancels in their difference D = A - B; its
uncertainty is that of the differences of each image's influence (delete-one jackknife, `evaluation.mmd`):

    se(D)^2 = var(a_x - b_x) / n + var(a_y - b_y) / m

with x the generated images, paired by number, and y the photographs. This takes far fewer images than comparing two
intervals. The interval holds the true difference in 95 of 100 cases, and in more where both runs are about as good as
photographs: there the jackknife is too careful.

The verdict of a row is that of the MMD; other metrics with influences are listed after it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.metrics import MAIN, METRICS, Influence, Row
from lediflow.evaluation.mmd import mean_variance
from lediflow.evaluation.results import (
    RESULTS,
    ROWS,
    birth_certificate,
    claim_results,
    digest,
    read_results,
    sampling_of,
    write_results,
)
from lediflow.records import UNREADABLE, RecordError
from lediflow.text import steps_text

LEVEL = 0.95
VALUE, X, Y = "unbiased", "influence_x", "influence_y"

Setting = tuple[str, int, float]  # solver, steps, temperature


@dataclass(frozen=True)
class MeasuredRun:
    """One run's estimate of a metric with each image's influence on it."""

    unbiased: float
    influence_x: Float[Tensor, " n"]  # of each generated image, by number
    influence_y: Float[Tensor, " m"]  # of each photograph, by number
    record: dict[str, Any]  # what two runs must share to be compared: reference, features, seed, count


def influence_file(folder: Path, row: Row) -> Path:
    """The file of a row's influences, among the results in a folder."""
    return folder / ROWS / f"{digest(row['record'])}.safetensors"


def write_influences(path: Path, influences: Mapping[str, Influence], record: dict[str, Any]) -> None:
    """Keep the influences of each metric. Keys of other metrics than the MMD begin with the metric's key and a dot."""
    metadata, tensors = {"record": json.dumps(record)}, {}
    for key, influence in influences.items():
        metadata[prefix(key) + VALUE] = json.dumps(influence.value)
        tensors[prefix(key) + X] = influence.x.contiguous()
        tensors[prefix(key) + Y] = influence.y.contiguous()
    with whole_or_absent(path) as stream:
        stream.write(save(tensors, metadata))


def read_influences(path: Path) -> dict[str, MeasuredRun]:
    """Read what `write_influences` wrote, by metric; RecordError for any other file."""
    if not path.exists():
        raise UserError(f"there is no {path} to compare with; evaluate that run first")
    try:
        with safe_open(path, "pt") as file:
            metadata = {key: json.loads(value) for key, value in file.metadata().items()}
            keys = [
                key.removesuffix(VALUE).removesuffix(".") or MAIN.key
                for key in metadata
                if key.endswith(VALUE)
            ]
            return {
                key: MeasuredRun(
                    metadata[prefix(key) + VALUE],
                    file.get_tensor(prefix(key) + X),
                    file.get_tensor(prefix(key) + Y),
                    metadata["record"],
                )
                for key in {MAIN.key: None} | dict.fromkeys(sorted(keys))
            }
    except (OSError, SafetensorError, *UNREADABLE, LookupError, AttributeError) as error:
        raise RecordError(
            f"{path} cannot be read ({error}); delete it and its row, {path.stem}.json, and evaluate that run again"
        ) from error


def prefix(key: str) -> str:
    return "" if key == MAIN.key else f"{key}."


@dataclass(frozen=True)
class Comparison:
    """Run A against run B."""

    difference: float  # A - B
    standard_error: float
    interval: tuple[float, float]
    verdict: str  # "better", "worse" or "undecided": A against B


def compare(
    a: MeasuredRun, b: MeasuredRun, level: float = LEVEL, direction: Literal["lower", "higher"] = "lower"
) -> Comparison:
    """A against B, where `direction` is better; undecided while the interval of the difference contains 0."""
    refuse_unpaired(a, b)
    difference = a.unbiased - b.unbiased
    variances = (
        mean_variance(a.influence_x - b.influence_x),
        mean_variance(a.influence_y - b.influence_y),
    )
    standard_error = math.sqrt(math.fsum(variances))
    reach = NormalDist().inv_cdf(0.5 + level / 2) * standard_error
    interval = (difference - reach, difference + reach)
    return Comparison(difference, standard_error, interval, verdict_of(*interval, direction))


def verdict_of(low: float, high: float, direction: Literal["lower", "higher"]) -> str:
    if low <= 0 <= high or math.isnan(low):
        return "undecided"
    return "better" if (high < 0) == (direction == "lower") else "worse"


def refuse_unpaired(a: MeasuredRun, b: MeasuredRun) -> None:
    """UserError unless both runs were measured in the same way, so that images can be paired by number."""
    found, other = (
        run.record | {"samples": len(run.influence_x), "photographs": len(run.influence_y)} for run in (a, b)
    )
    keys = [key for key in {**found, **other} if found.get(key) != other.get(key)]
    if keys:
        differences = "; ".join(f"{key}: {found.get(key)!r} and {other.get(key)!r}" for key in keys)
        raise UserError(
            f"the two runs cannot be compared image by image, they differ in {differences}; evaluate both against the "
            "same reference, with the same features, seed and number of images"
        )


def compare_results(command: EvaluateConfig) -> dict[str, Any]:
    """Print and write a verdict on the first folder's rows against the second's, for each setting that both have."""
    if len(command.results) != 2:
        raise UserError(
            f"mode=compare takes two folders that this command wrote, found {len(command.results)}: "
            "'results=[RUN_A/results,RUN_B/results]'"
        )
    if command.output:
        claim_results(Path(command.output))
    first, second = (Path(folder) for folder in command.results)
    ours, theirs = rows_of(first), rows_of(second)
    shared = [setting for setting in ours if setting in theirs]
    if not shared:
        raise UserError(
            f"{first} has rows for {settings_text(ours)}, {second} for {settings_text(theirs)}: none is in both; "
            "evaluate the runs with the same solver, steps and temperature"
        )
    rows = [compare_rows(first, ours[setting], second, theirs[setting]) for setting in shared]
    if differing := differing_settings(ours[shared[0]], theirs[shared[0]]):
        print(f"note: the images differ in more than the models: {differing}", file=sys.stderr)
    for row in rows:
        print("\n".join(sentences(row)))
    results = {"a": str(first.absolute()), "b": str(second.absolute()), "rows": rows}
    if command.output:
        write_results(Path(command.output) / RESULTS, results, birth_certificate(seed=None))
    return results


def rows_of(folder: Path) -> dict[Setting, Row]:
    """Rows by setting; UserError for results of several runs, which cannot be distinguished here."""
    if not (folder / RESULTS).is_file():
        raise UserError(
            f"{folder} has no {RESULTS}; give folders that lediflow.evaluate wrote, such as RUN/results"
        )
    rows = read_results(folder / RESULTS)["results"]["rows"]
    found = {(row["solver"], row["steps"], row["temperature"]): row for row in rows if "solver" in row}
    if not found or len(found) < len(rows):
        raise UserError(
            f"{folder} does not hold the rows of one run; give the results of `lediflow.evaluate run=...`, one run each"
        )
    return found


def compare_rows(first: Path, ours: Row, second: Path, theirs: Row) -> Row:
    """The MMD's difference, interval and verdict at one setting; those of other metrics under "metrics"."""
    a, b = (read_influences(influence_file(folder, row)) for folder, row in ((first, ours), (second, theirs)))
    names = ("solver", "steps", "temperature", "mmd_name")
    values = {"mmd_a": ours["mmd_unbiased"], "mmd_b": theirs["mmd_unbiased"]}
    row = {name: ours[name] for name in names} | values | asdict(compare(a[MAIN.key], b[MAIN.key]))
    others = [metric for key, metric in METRICS.items() if key != MAIN.key and key in a and key in b]
    found = {
        metric.key: {
            "name": metric.heading(ours),
            "a": a[metric.key].unbiased,
            "b": b[metric.key].unbiased,
            **asdict(compare(a[metric.key], b[metric.key], direction=metric.direction)),
        }
        for metric in others
    }
    return row | ({"metrics": found} if found else {})


def sentences(row: Row) -> list[str]:
    """A line for the MMD, and one for each other metric."""
    main = {"name": row["mmd_name"], "a": row["mmd_a"], "b": row["mmd_b"], **row}
    setting = f"{row['solver']} {steps_text(row['steps'])}"
    found = {MAIN.key: main} | row.get("metrics", {})
    return [f"{setting}: {comparison_text(entry, METRICS[key].digits + 1)}" for key, entry in found.items()]


def comparison_text(found: Row, digits: int) -> str:
    """Both values, their difference and the verdict; one digit more than in a table, as differences are small."""
    low, high = found["interval"]
    return (
        f"{found['name']} {found['a']:.{digits}f} against {found['b']:.{digits}f}, "
        f"difference {found['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]: {found['verdict']}"
    )


def differing_settings(ours: Row, theirs: Row) -> str:
    """The options of sampling in which two rows of one setting differ, as `labels: [4] and []`; "" if in none."""
    found, other = sampling_of(ours), sampling_of(theirs)
    keys = [key for key in {**found, **other} if found.get(key) != other.get(key)]
    return "; ".join(f"{key}: {found.get(key)} and {other.get(key)}" for key in keys)


def settings_text(rows: dict[Setting, Row]) -> str:
    return ", ".join(f"{solver} {steps} (temperature {temperature:g})" for solver, steps, temperature in rows)
