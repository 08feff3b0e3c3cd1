"""Is one run better than another? A paired comparison of their unbiased MMDs from the same reference.

Both runs are measured against the same photographs, and their i-th samples come from the same seed. What the two
estimates share then cancels in their difference D = A - B, and its uncertainty is that of the differences of each
image's influence (the delete-one jackknife's, `distances.estimate`):

    se(D)^2 = var(a_x - b_x) / n + var(a_y - b_y) / m

with x the samples, paired by number, and y the photographs. Lower is better. The interval holds the true difference
in 95 of 100 cases, and in more where both runs are about as good as photographs: there the jackknife is too careful.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.distances.estimate import mean_variance
from lediflow.records import UNREADABLE, RecordError

LEVEL = 0.95
X, Y = "influence_x", "influence_y"


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
