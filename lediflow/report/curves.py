"""Curves prepared for plots: thinned and smoothed; labels moved apart. Nothing is drawn here."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from lediflow.tracking.event_log import Curve

MAX_POINTS = 1200  # more than a plot has pixels
WINDOW = 0.015  # standard deviation of the smoothing window, as a share of the curve's length


def finite(curve: Curve) -> Curve:
    """The points whose value is finite."""
    known = np.isfinite(curve.values)
    return Curve(curve.images_seen[known], curve.values[known])


def thin(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """At most `most` points, each the mean of a run of neighbours."""
    if len(curve.values) <= most:
        return curve
    parts = [np.array_split(values, most) for values in curve]
    return Curve(*(np.array([part.mean() for part in split]) for split in parts))


def smooth(curve: Curve, window: float = WINDOW, in_logs: bool = False) -> Curve:
    """Replace each value by the mean of the values around it, weighted by a centred Gaussian, so without lag.

    `window` is the Gaussian's standard deviation as a share of the curve's length. `in_logs` takes geometric means,
    which lie in the middle of the raw points on a logarithmic axis.
    """
    if len(curve.values) < 3:
        return curve
    x = curve.images_seen.astype(np.float64)
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / max(window * np.ptp(x), 1e-9)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    values = np.exp(weights @ np.log(curve.values)) if in_logs else weights @ curve.values
    return Curve(curve.images_seen, values)


def spans_decades(curves: list[Curve], factor: float = 12.0) -> bool:
    """Whether a logarithmic axis shows the curves better: all values positive, largest / smallest above `factor`."""
    values = np.concatenate([curve.values for curve in curves])
    return bool(values.size and values.min() > 0 and values.max() / values.min() > factor)


def spread(
    places: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf
) -> Float[np.ndarray, " labels"]:
    """The places moved so that neighbours are at least `gap` apart: each crowd is spread around its mean.

    Results lie between `low` and `high` where a crowd fits between them; if not, it starts at `low`.
    """
    crowds = [[int(index)] for index in np.argsort(places, kind="stable")]
    moved = np.clip(np.array(places, dtype=np.float64), low, high)
    while (touching := first_touching(crowds, moved, gap)) is not None:
        crowd = crowds[touching] + crowds.pop(touching + 1)
        crowds[touching] = crowd
        length = gap * (len(crowd) - 1)
        first = float(np.mean([places[index] for index in crowd])) - length / 2
        moved[crowd] = max(low, min(first, high - length)) + gap * np.arange(len(crowd))
    return moved


def first_touching(crowds: list[list[int]], places: Float[np.ndarray, " labels"], gap: float) -> int | None:
    """The first crowd that is closer than `gap` to the next; None if there is none."""
    for number, (crowd, following) in enumerate(pairwise(crowds)):
        if places[following[0]] - places[crowd[-1]] < gap - 1e-9:
            return number
    return None
