"""Curves made readable: thinned, smoothed, and labels kept from overlapping. No drawing here."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from lediflow.tracking.event_log import Curve

MOST_POINTS = 1200  # more than a plot has pixels for
WINDOW = 0.015  # standard deviation of the smoothing window, as a share of the curve's length


def finite(curve: Curve) -> Curve:
    """The points that are numbers."""
    known = np.isfinite(curve.values)
    return Curve(curve.images_seen[known], curve.values[known])


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """At most so many points, each the mean of its neighbours."""
    if len(curve.values) <= most:
        return curve
    parts = [np.array_split(values, most) for values in curve]
    return Curve(*(np.array([part.mean() for part in split]) for split in parts))


def smooth(curve: Curve, window: float = WINDOW, in_logs: bool = False) -> Curve:
    """Each point becomes the mean of the points around it, weighted by a Gaussian: no lag.

    `in_logs` takes geometric means, which sit in the middle of the raw points on a log scale.
    """
    if len(curve.values) < 3:
        return curve
    x = curve.images_seen.astype(np.float64)
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / max(window * np.ptp(x), 1e-9)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    values = np.exp(weights @ np.log(curve.values)) if in_logs else weights @ curve.values
    return Curve(curve.images_seen, values)


def spans_decades(curves: list[Curve], factor: float = 12.0) -> bool:
    """Whether a log scale shows the curves better: all positive, and far apart at their ends."""
    values = np.concatenate([curve.values for curve in curves])
    return bool(values.size and values.min() > 0 and values.max() / values.min() > factor)


def spread(places: Sequence[float], gap: float) -> Float[np.ndarray, " labels"]:
    """The places with neighbours at least `gap` apart: each crowd spreads around its own middle."""
    crowds = [[int(index)] for index in np.argsort(places, kind="stable")]
    moved = np.array(places, dtype=np.float64)
    while (touching := first_touching(crowds, moved, gap)) is not None:
        crowd = crowds[touching] + crowds.pop(touching + 1)
        crowds[touching] = crowd
        middle = np.mean([places[index] for index in crowd])
        moved[crowd] = middle + gap * (np.arange(len(crowd)) - (len(crowd) - 1) / 2)
    return moved


def first_touching(crowds: list[list[int]], places: Float[np.ndarray, " labels"], gap: float) -> int | None:
    """Which crowd is the first to be too close to the next."""
    for number, (crowd, following) in enumerate(pairwise(crowds)):
        if places[following[0]] - places[crowd[-1]] < gap - 1e-9:
            return number
    return None
