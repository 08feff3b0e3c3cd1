"""The lowest held-out loss of a run, and whether the loss has turned since, that is, has risen by more than noise.

Every validation measures the loss l_i of the same n samples with the same draws under the averaged weights, which are
exported. With b the validation of the lowest mean so far and d_i = l_i(now) - l_i(b):

    rise   D = mean(d_i)
    noise  s = sqrt(var(d_i) / n + 2 j^2)        j = 1.4826 median|third differences of the means| / sqrt(20)
    fall   F = mean loss of the first validation - mean loss of b

var(d_i) / n is the squared standard error of a paired difference, in which the difficulty of each sample cancels. j
is the standard deviation of single means around a smooth curve, since the weights fluctuate: third differences remove
level, slope and curvature, their variance is 20 j^2, and 1.4826 times the median is a robust standard deviation,
which the steep beginning of the curve does not change. The loss is *above* its lowest where D > 5 s and D > F / 20,
and has *turned* where it is above at two validations in a row and there have been five. A mean that is not finite
counts as above.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

# Distance between the validations of a third difference -> number of such differences that are needed. The larger
# distance is there because a long average correlates neighbouring validations.
LAGS = {1: 1, 2: 12}
ERRORS = 5.0  # standard deviations of noise that a rise must exceed
SHARE = 0.05  # of the fall so far that a rise must exceed
IN_A_ROW = 2  # validations above the lowest, until the loss has turned
FEWEST = 5  # validations before a loss can have turned: fewer do not determine their noise
RECENT = 64  # means that are kept to estimate their noise
MEDIAN_TO_DEVIATION = 1.4826  # of a normal distribution

Losses = Float64[np.ndarray, " samples"]


@dataclass(frozen=True)
class Best:
    """The validation of the lowest mean loss."""

    images_seen: int
    loss: float
    losses: list[float]  # per sample


@dataclass(frozen=True)
class Turn:
    """The state when the loss had turned."""

    images_seen: int
    best_images_seen: int
    best_loss: float
    rise: float
    noise: float

    @property
    def values(self) -> dict[str, float | int]:
        """Values of the event; `images_seen` is a field of every event."""
        return {name: value for name, value in asdict(self).items() if name != "images_seen"}


class Point(NamedTuple):
    """One validation compared with the best so far, which may be itself."""

    images_seen: int
    loss: float  # mean over the samples, under the averaged weights
    best_images_seen: int
    best_loss: float
    rise: float  # of the mean since the lowest; 0 at the lowest
    noise: float  # one standard deviation of `rise` if nothing had changed
    is_best: bool
    is_above: bool
    has_turned: bool  # at this validation; true at most once in a run

    @property
    def values(self) -> dict[str, float | int]:
        """Values of the `validation` event, besides those of the last step's weights."""
        return {
            "averaged_loss": self.loss,
            "best_images_seen": self.best_images_seen,
            "best_loss": self.best_loss,
            "rise": self.rise,
            "noise": self.noise,
        }


@dataclass
class HeldOut:
    """History of a run's held-out losses; call `note` at each validation.

    `samples` is a fingerprint of the samples: losses of different samples are not compared.
    """

    samples: str = ""
    best: Best | None = None
    first: float | None = None  # mean loss of the first validation that was a finite number
    recent: list[float] = field(default_factory=list)  # means, oldest first
    validations: int = 0
    above_in_a_row: int = 0
    last: Point | None = None
    turn: Turn | None = None

    def note(self, images_seen: int, losses: Losses) -> Point:
        """Compare the samples' losses, [n], with those of the best validation; keep them if their mean is lower."""
        mean = float(losses.mean())
        self.validations += 1
        if math.isfinite(mean):
            self.first = mean if self.first is None else self.first
            self.recent = [*self.recent, mean][-RECENT:]
        is_best = self.best is None or mean < self.best.loss or not math.isfinite(self.best.loss)
        if is_best:
            self.best = Best(images_seen, mean, losses.tolist())
        assert self.best is not None
        rise, noise = rise_and_noise(losses, np.array(self.best.losses), self.recent)
        is_above = not is_best and is_beyond(rise, noise, (self.first or 0.0) - self.best.loss)
        self.above_in_a_row = self.above_in_a_row + 1 if is_above else 0
        has_turned = self.turn is None and self.above_in_a_row >= IN_A_ROW and self.validations >= FEWEST
        if has_turned:
            self.turn = Turn(images_seen, self.best.images_seen, self.best.loss, rise, noise)
        self.last = Point(
            images_seen,
            mean,
            self.best.images_seen,
            self.best.loss,
            rise,
            noise,
            is_best,
            is_above,
            has_turned,
        )
        return self.last

    @property
    def images_since_best(self) -> int:
        """Images between the best validation and the last one; 0 before the first."""
        return self.last.images_seen - self.last.best_images_seen if self.last else 0

    def state(self) -> dict[str, Any]:
        """The whole state, for a checkpoint's record."""
        return asdict(self) | {"last": self.last._asdict() if self.last else None}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HeldOut:
        """Inverse of `state`."""
        best, turn, last = (state[name] for name in ("best", "turn", "last"))
        return cls(
            **{name: state[name] for name in ("samples", "first", "validations", "above_in_a_row")},
            recent=list(state["recent"]),
            best=Best(**best) if best else None,
            turn=Turn(**turn) if turn else None,
            last=Point(**last) if last else None,
        )

    def restarted(self) -> HeldOut:
        """An empty history, which keeps `turn` so that a turn is not reported twice."""
        return HeldOut(self.samples, turn=self.turn)


def rise_and_noise(now: Losses, best: Losses, means: list[float]) -> tuple[float, float]:
    """Rise of the mean loss since the best validation and the standard deviation of its noise.

    `now` and `best` are losses of the same n samples, `means` those of the validations so far. (inf, 0) if not finite.
    """
    difference = now - best
    rise = float(difference.mean())
    if not math.isfinite(rise):
        return math.inf, 0.0
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return rise, math.hypot(error, math.sqrt(2) * scatter(means))


def scatter(means: list[float]) -> float:
    """Standard deviation j of single means around a smooth curve; 0 for fewer than four means."""
    by_lag = {lag: third_differences(np.array(means), lag) for lag in LAGS}
    medians = [float(np.median(np.abs(thirds))) for lag, thirds in by_lag.items() if len(thirds) >= LAGS[lag]]
    return MEDIAN_TO_DEVIATION * max(medians, default=0.0) / math.sqrt(20)


def third_differences(
    means: Float64[np.ndarray, " validations"], lag: int
) -> Float64[np.ndarray, " differences"]:
    """Third differences of validations `lag` apart; a parabola gives 0."""
    for _ in range(3):
        means = means[lag:] - means[:-lag]
    return means


def is_beyond(rise: float, noise: float, fall: float) -> bool:
    """Whether a loss that had fallen by `fall` has risen by more than noise, and by enough to matter."""
    return rise > ERRORS * noise and rise > SHARE * max(fall, 0.0)
