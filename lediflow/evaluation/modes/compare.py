"""Is one run better than another? A paired comparison of their unbiased MMDs from the same reference.

Both runs are measured against the same photographs, and their i-th samples come from the same seed. What the two
estimates share then cancels in their difference D = A - B, and its uncertainty is that of the differences of each
image's influence (the delete-one jackknife's, `distances.estimate`):

    se(D)^2 = var(a_x - b_x) / n + var(a_y - b_y) / m

with x the samples, paired by number, and y the photographs. Lower is better. The interval holds the true difference
in 95 of 100 cases, and in more where both runs are about as good as photographs: there the jackknife is too careful.

Finished results of two runs, paired by seed: which is better, or that the images do not say.

Rows of the same solver, steps and temperature are compared. Image i of both began with the same noise and the
photographs are the same, so what both have in common cancels, and far fewer images decide than two intervals would.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from lediflow.errors import UserError
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.distances.mmd import mean_variance
from lediflow.evaluation.metrics import Measured
from lediflow.evaluation.modes.rows import influence_file
from lediflow.evaluation.results import RESULTS, birth_certificate, claim_results, read_results, write_results

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Of run A with run B."""

    difference: float  # A - B: below 0 where A is better
    standard_error: float
    interval: tuple[float, float]
    verdict: str  # "better", "worse" or "undecided": A against B


def compare(a: Measured, b: Measured, level: float = LEVEL) -> Comparison:
    """A against B; undecided while the interval of the difference holds 0."""
    refuse_unpaired(a, b)
    difference = a.unbiased - b.unbiased
    variances = (
        mean_variance(a.influence_x - b.influence_x),
        mean_variance(a.influence_y - b.influence_y),
    )
    standard_error = math.sqrt(math.fsum(variances))
    reach = NormalDist().inv_cdf(0.5 + level / 2) * standard_error
    interval = (difference - reach, difference + reach)
    return Comparison(difference, standard_error, interval, verdict_of(*interval))


def verdict_of(low: float, high: float) -> str:
    """Lower is better."""
    if high < 0:
        return "better"
    return "worse" if low > 0 else "undecided"


def refuse_unpaired(a: Measured, b: Measured) -> None:
    """Only what was measured in the same way can be compared image by image."""
    found, other = (
        run.record | {"samples": len(run.influence_x), "photographs": len(run.influence_y)} for run in (a, b)
    )
    keys = [key for key in {**found, **other} if found.get(key) != other.get(key)]
    if keys:
        told = "; ".join(f"{key}: {found.get(key)!r} and {other.get(key)!r}" for key in keys)
        raise UserError(
            f"the two runs cannot be compared image by image, they differ in {told}; evaluate both against the same "
            "reference, with the same features, seed and number of images"
        )


Row = dict[str, Any]
Setting = tuple[str, int, float]


def compare_results(command: EvaluateConfig) -> dict[str, Any]:
    """A verdict on the first folder's rows against the second's, for every setting that both have."""
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
    rows = [verdict(first, ours[setting], second, theirs[setting]) for setting in shared]
    for row in rows:
        print(sentence(row))
    results = {"a": str(first.absolute()), "b": str(second.absolute()), "rows": rows}
    if command.output:
        write_results(Path(command.output) / RESULTS, results, birth_certificate(seed=None))
    return results


def rows_of(folder: Path) -> dict[Setting, Row]:
    """By setting; several runs of a grid cannot be told apart here."""
    rows = read_results(folder / RESULTS)["results"]["rows"]
    found = {(row["solver"], row["steps"], row["temperature"]): row for row in rows if "solver" in row}
    if not found or len(found) < len(rows):
        raise UserError(
            f"{folder} does not hold the rows of one run; give the results of `lediflow.evaluate run=...`, one run each"
        )
    return found


def verdict(first: Path, ours: Row, second: Path, theirs: Row) -> Row:
    """One setting: the difference, its interval and the word for it."""
    a, b = (Measured.load(influence_file(folder, row)) for folder, row in ((first, ours), (second, theirs)))
    names = ("solver", "steps", "temperature", "mmd_name")
    values = {"mmd_a": ours["mmd_unbiased"], "mmd_b": theirs["mmd_unbiased"]}
    return {name: ours[name] for name in names} | values | asdict(compare(a, b))


def sentence(row: Row) -> str:
    low, high = row["interval"]
    return (
        f"{row['solver']} {row['steps']} steps: {row['mmd_name']} {row['mmd_a']:.3f} against {row['mmd_b']:.3f}, "
        f"difference {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]: {row['verdict']}"
    )


def settings_text(rows: dict[Setting, Row]) -> str:
    return ", ".join(f"{solver} {steps} (temperature {temperature:g})" for solver, steps, temperature in rows)
